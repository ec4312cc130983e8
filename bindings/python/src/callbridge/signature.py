"""Signatures: what a callback takes after its user_data, and returns, as the library and ctypes have it."""
import ctypes
from ctypes import CFUNCTYPE, byref, c_uint64, sizeof

from ._library import Value, quick
from .errors import check

# The library's types. _BY_SIZE: of whole numbers, signed and unsigned.
VOID, BOOL, F32, F64, PTR = 1, 2, 11, 12, 13
_BY_SIZE = {1: (3, 4), 2: (5, 6), 4: (7, 8), 8: (9, 10)}
# ctypes' codes of its simple types.
_SIGNED, _UNSIGNED, _POINTERS = "bhilq", "BHILQ", "PzZO"
# What ctypes has for the library's types, for signatures that come as text.
_CTYPES = {
    VOID: None, BOOL: ctypes.c_bool, 3: ctypes.c_int8, 4: ctypes.c_uint8, 5: ctypes.c_int16, 6: ctypes.c_uint16,
    7: ctypes.c_int32, 8: ctypes.c_uint32, 9: ctypes.c_int64, 10: ctypes.c_uint64, F32: ctypes.c_float,
    F64: ctypes.c_double, PTR: ctypes.c_void_p,
}  # fmt: skip
_FUNCTION = type(CFUNCTYPE(None)).__mro__[0]
_POINTER = type(ctypes.POINTER(ctypes.c_int))


def _type_number(ctype):
    """The library's number of a type of ctypes'."""
    if ctype is None:
        return VOID
    if isinstance(ctype, (_POINTER, _FUNCTION)):
        return PTR
    code = getattr(ctype, "_type_", None) if isinstance(ctype, type) and issubclass(ctype, ctypes._SimpleCData) else None
    if code == "?":
        return BOOL
    if code in ("f", "d"):
        return F32 if code == "f" else F64
    if code is not None and code in _POINTERS:
        return PTR
    if code is not None and code in _SIGNED + _UNSIGNED:
        return _BY_SIZE[sizeof(ctype)][code in _UNSIGNED]
    raise TypeError("%r cannot be part of a signature: numbers and pointers can" % (ctype,))


class Signature:
    """What a callback takes and returns: `restype` and `argtypes` as in ctypes, `number` as in the library.

    Made of a prototype of ctypes' CFUNCTYPE, of a tuple (restype, *argtypes), or of text such as
    "i32(ptr,ptr)". At most 14 arguments; numbers and pointers, no structures.
    """

    __slots__ = ("number", "restype", "argtypes", "prototype", "kind")

    def __init__(self, restype, *argtypes):
        types = [_type_number(restype)] + [_type_number(argtype) for argtype in argtypes]
        if len(argtypes) > 14 or VOID in types[1:]:
            raise TypeError("a signature has at most 14 arguments, none of them void")
        if types[0] == PTR and restype is not ctypes.c_void_p:
            # ctypes would have to own what such a pointer is of.
            raise TypeError("a pointer is returned as c_void_p, not %r" % (restype,))
        self.number = len(argtypes) << 60
        for place, number in enumerate(types):
            self.number |= number << (56 - 4 * place)
        self.restype, self.argtypes = restype, argtypes
        # The C function without user_data, as a thunk has it.
        self.prototype = CFUNCTYPE(restype, *argtypes)
        self.kind = types[0]

    @classmethod
    def of(cls, what):
        """`what` as a signature: one already, a prototype, a tuple of types, a text, or None for the default."""
        if what is None:
            return DEFAULT
        if isinstance(what, cls):
            return what
        if isinstance(what, str):
            return cls._parse(what)
        if isinstance(what, (tuple, list)):
            return cls(*what)
        if isinstance(what, _FUNCTION):
            return cls(what._restype_, *what._argtypes_)
        raise TypeError("%r is no signature: give a CFUNCTYPE, (restype, *argtypes) or text" % (what,))

    @classmethod
    def _parse(cls, words):
        number = c_uint64()
        check(quick.cbr_signature_parse(words.encode(), byref(number)))
        count = number.value >> 60
        return cls(*(_CTYPES[number.value >> (56 - 4 * place) & 15] for place in range(count + 1)))

    def value(self, number):
        """`number` as the library has a result of this signature; for fallbacks."""
        field = {VOID: "u", F32: "f32", F64: "f64", PTR: "ptr"}.get(self.kind, "i")
        return Value(**{field: number})

    def __str__(self):
        room = ctypes.create_string_buffer(quick.cbr_signature_format(self.number, None, 0) + 1)
        quick.cbr_signature_format(self.number, room, len(room))
        return room.value.decode()

    def __repr__(self):
        return "Signature(%r)" % str(self)

    def __eq__(self, other):
        return isinstance(other, Signature) and self.number == other.number

    def __hash__(self):
        return hash(self.number)


DEFAULT = Signature(ctypes.c_ssize_t, ctypes.c_void_p)
