package io.callbridge;

/** The statuses of the C API, {@code CBR_OK} and {@code CBR_ERR_*}, by the same names and numbers. */
public enum Status {
  /** Done. */
  OK(0),
  /** A null function where one is needed. */
  NULL(-1),
  /** The callback has thrown an exception. */
  PANIC(-2),
  /** The object is gone, or never was. */
  STALE(-3),
  /** An argument is out of its range. */
  INVALID(-4),
  /** The handle is of another kind of object. */
  KIND(-5),
  /** The callback was registered with another signature. */
  SIGNATURE(-6),
  /** The callback belongs to another thread. */
  THREAD(-7),
  /** The wait could never end: the caller is inside what it waits for. */
  DEADLOCK(-8),
  /** The deadline has passed. */
  TIMEOUT(-9),
  /** The queue is full. */
  FULL(-10),
  /** Nothing to dispatch. */
  EMPTY(-11),
  /** The scope or queue no longer takes work. */
  CLOSED(-12),
  /** Already set, and the first one stays. */
  EXISTS(-13),
  /** Nothing is known under this name or key. */
  NOT_FOUND(-14),
  /** A stated limit is reached. */
  LIMIT(-15),
  /** Out of memory. */
  NOMEM(-16),
  /** The operating system has refused. */
  SYSTEM(-17),
  /** Not in this version of the library. */
  UNSUPPORTED(-18),
  /** The callback has reported failure, or could not be run. */
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
