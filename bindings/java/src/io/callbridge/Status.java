package io.callbridge;

/** The statuses of the C API, {@code CBR_OK} and {@code CBR_ERR_*}, by the same names and numbers. */
public enum Status {
  OK(0),
  NULL(-1),
  PANIC(-2),
  STALE(-3),
  INVALID(-4),
  KIND(-5),
  SIGNATURE(-6),
  THREAD(-7),
  DEADLOCK(-8),
  TIMEOUT(-9),
  FULL(-10),
  EMPTY(-11),
  CLOSED(-12),
  EXISTS(-13),
  NOT_FOUND(-14),
  LIMIT(-15),
  NOMEM(-16),
  SYSTEM(-17),
  UNSUPPORTED(-18),
  CALLBACK(-19),
  /** A number that a later version of the library gives, and this class does not know. */
  UNKNOWN(Integer.MIN_VALUE);

  private static final Status[] VALUES = values();

  private final int code;

  Status(int code) {
    this.code = code;
  }

  /**
   * The number in C.
   *
   * @return 0 or below
   */
  public int code() {
    return code;
  }

  /**
   * The status of that number.
   *
   * @param code a {@code cbr_status}
   * @return the status, or {@link #UNKNOWN}
   */
  public static Status of(int code) {
    // The numbers count down from 0, without a gap.
    return code <= 0 && -(long) code < VALUES.length - 1 ? VALUES[-code] : UNKNOWN;
  }
}
