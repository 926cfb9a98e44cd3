"""A group of LANES rows at once, in vector instructions that numba does not find by itself.

numba leaves loops over sixteen lanes to LLVM's vectoriser, which gives up on them, since the rows of a group read and
write scattered places: that takes three times as long. So the two innermost loops are written in LLVM's own language,
in which a vector of sixteen floats is a type. LLVM makes one AVX-512 instruction of an operation on it, two of AVX,
four of NEON or SSE. The bits are the same on all of them, since nothing is reordered or contracted.

Lane l of a vector belongs to row l of the group. A group's slots are laid out as `decoder.serial.rows.Rows` says, so
that step d reads LANES places one after the other: the d-th fault of every row.

Arguments that belong together come as tuples:

* group: the array of slots, the place in it where the group starts, and its steps (the width of its widest row);
* signs: an array of float32, negative for rows with an event, and the place of the group's first row in it;
* messages: an array of float32 with a place for each slot, and where the group's first one is.

All arrays are flat and contiguous, and all places int64.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from decoder.serial.rows import LANES

_FLOAT, _INT, _LONG = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_SIGN_BITS = ir.Constant(_INTS, [-(2**31)] * LANES)


class _Writer:
    """Writes instructions on vectors of LANES floats."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def load(self, pointer: Any, at: Any) -> Any:
        """The LANES floats from place `at` on, which need not be aligned to vectors."""
        place = self.builder.bitcast(self.builder.gep(pointer, [at]), _FLOATS.as_pointer())
        return self.builder.load(place, align=4)

    def store(self, vector: Any, pointer: Any, at: Any) -> None:
        """Stores them there."""
        place = self.builder.bitcast(self.builder.gep(pointer, [at]), _FLOATS.as_pointer())
        self.builder.store(vector, place, align=4)

    def place(self, slots: Any, at: Any, lane: int) -> Any:
        """The fault in one lane of a step's slots, as an index."""
        fault = self.builder.load(self.builder.gep(slots, [self.builder.add(at, _LONG(lane))]))
        return self.builder.zext(fault, _LONG)

    def gather(self, values: Any, slots: Any, at: Any) -> Any:
        """The values of a step's LANES faults: sixteen loads, since they lie anywhere."""
        vector = ir.Constant(_FLOATS, ir.Undefined)
        for lane in range(LANES):
            value = self.builder.load(self.builder.gep(values, [self.place(slots, at, lane)]))
            vector = self.builder.insert_element(vector, value, _INT(lane))
        return vector

    def scatter(self, vector: Any, values: Any, slots: Any, at: Any) -> None:
        """Stores the values of a step's faults. Rows share no fault but the one that pads, on which all lanes agree."""
        for lane in range(LANES):
            place = self.builder.gep(values, [self.place(slots, at, lane)])
            self.builder.store(self.builder.extract_element(vector, _INT(lane)), place)

    def everywhere(self, scalar: Any) -> Any:
        """A float in every lane."""
        first = self.builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), scalar, _INT(0))
        return self.builder.shuffle_vector(first, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, [0] * LANES))

    def least(self, one: Any, other: Any) -> Any:
        """The lesser of two in each lane."""
        return self.builder.select(self.builder.fcmp_ordered("<", one, other), one, other)

    def most(self, one: Any, other: Any) -> Any:
        """The greater of two in each lane."""
        return self.builder.select(self.builder.fcmp_ordered(">", one, other), one, other)

    def size(self, vector: Any) -> Any:
        """Absolute values: without the sign bit."""
        bits = self.builder.and_(self.bits(vector), self.builder.not_(_SIGN_BITS))
        return self.floats(bits)

    def signs(self, vector: Any) -> Any:
        """The sign bits alone."""
        return self.builder.and_(self.bits(vector), _SIGN_BITS)

    def bits(self, vector: Any) -> Any:
        """Floats as the integers with the same bits."""
        return self.builder.bitcast(vector, _INTS)

    def floats(self, vector: Any) -> Any:
        """Integers as the floats with the same bits."""
        return self.builder.bitcast(vector, _FLOATS)


def _instruction(code: Any) -> Any:
    """An instruction for compiled functions."""
    return intrinsic(code)


def _variable(builder: Any, value: Any) -> Any:
    """A place that holds a value, which LLVM turns into a register."""
    return cgutils.alloca_once_value(builder, value)  # type: ignore[no-untyped-call]


def _data(context: Any, builder: Any, signature: Any, arguments: Any) -> list[Any]:
    """The arguments in LLVM's language: arrays as pointers to their data, tuples as lists."""
    return [_datum(context, builder, kind, value) for kind, value in zip(signature.args, arguments, strict=True)]


def _datum(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.Array):
        return context.make_array(kind)(context, builder, value).data
    if isinstance(kind, types.BaseTuple):
        parts: list[Any] = list(kind)  # type: ignore[call-overload]
        return [_datum(context, builder, part, builder.extract_value(value, n)) for n, part in enumerate(parts)]
    return value


@_instruction
def visit_rows(typing_context, group, signs, posterior, messages, sent, scale, cap):  # type: ignore[no-untyped-def]
    """Updates a group of rows: what they say now replaces, in their faults' posteriors, what they said last.

    In the words of `decoder.serial.kernels`, for check i (a lane) and its faults j (the steps):

    1. nu_{j->i} = M_j - mu_{i->j}, which is kept in `sent`; the two least sizes and the parity of all signs are noted;
    2. mu_{i->j} = (parity without j's own sign) scale min(cap, least size among the others);
    3. M_j = nu_{j->i} + mu_{i->j}.

    Args:
        typing_context: numba's.
        group: see above.
        signs: see above.
        posterior: float32 (V + 1,), M_j.
        messages: see above.
        sent: float32, room for the group's slots.
        scale: float32, the factor of min-sum.
        cap: float32, the greatest size of a message before it is scaled.
    """
    signature = types.void(group, signs, posterior, messages, sent, scale, cap)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write = _Writer(builder)
        (slots, at, steps), (signs, signs_at), posterior, (messages, messages_at), sent, scale, cap = _data(
            context, builder, signature, arguments
        )
        huge = ir.Constant(_FLOATS, [1e30] * LANES)
        # What is noted while the steps go by.
        least, second = _variable(builder, huge), _variable(builder, huge)
        parity = _variable(builder, write.signs(write.load(signs, signs_at)))
        with cgutils.for_range(builder, steps, intp=_LONG) as loop:
            step = builder.mul(loop.index, _LONG(LANES))
            gathered = write.gather(posterior, slots, builder.add(at, step))
            message = builder.fsub(gathered, write.load(messages, builder.add(messages_at, step)))
            write.store(message, sent, step)
            size = write.size(message)
            # The two least of the old two and the new one, without a branch.
            builder.store(write.least(builder.load(second), write.most(builder.load(least), size)), second)
            builder.store(write.least(builder.load(least), size), least)
            builder.store(builder.xor(builder.load(parity), write.signs(message)), parity)
        smallest, signs_of_all = builder.load(least), builder.load(parity)
        factor, most = write.everywhere(scale), write.everywhere(cap)
        # A fault hears the least size among the others: the second least if its own is the least, else the least.
        usual = builder.fmul(write.least(smallest, most), factor)
        to_least = builder.fmul(write.least(builder.load(second), most), factor)
        with cgutils.for_range(builder, steps, intp=_LONG) as loop:
            step = builder.mul(loop.index, _LONG(LANES))
            message = write.load(sent, step)
            back = builder.select(builder.fcmp_ordered("<=", write.size(message), smallest), to_least, usual)
            # The parity has this fault's own sign in it; taken once more, it is gone.
            back = write.floats(builder.xor(write.bits(back), builder.xor(write.signs(message), signs_of_all)))
            write.store(back, messages, builder.add(messages_at, step))
            write.scatter(builder.fadd(message, back), posterior, slots, builder.add(at, step))
        return context.get_dummy_value()

    return signature, code


@_instruction
def any_unexplained(typing_context, group, signs, posterior):  # type: ignore[no-untyped-def]
    """Whether the likelier faults (M_j < 0) leave the event of any row of a group unexplained.

    That is where the sign bits of the row's posteriors and of its event add up to an odd number.

    Args:
        typing_context: numba's.
        group: see above.
        signs: see above.
        posterior: float32 (V + 1,), M_j.
    """
    signature = types.boolean(group, signs, posterior)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write = _Writer(builder)
        (slots, at, steps), (signs, signs_at), posterior = _data(context, builder, signature, arguments)
        parity = _variable(builder, write.bits(write.load(signs, signs_at)))
        with cgutils.for_range(builder, steps, intp=_LONG) as loop:
            step = builder.mul(loop.index, _LONG(LANES))
            likelier = write.bits(write.gather(posterior, slots, builder.add(at, step)))
            builder.store(builder.xor(builder.load(parity), likelier), parity)
        negative = builder.icmp_signed("<", builder.load(parity), ir.Constant(_INTS, [0] * LANES))
        lanes = ir.IntType(LANES)
        return builder.icmp_unsigned("!=", builder.bitcast(negative, lanes), lanes(0))

    return signature, code


@_instruction
def suspected(typing_context, posterior, bias, at):  # type: ignore[no-untyped-def]
    """Of the sixteen faults from a place on, those whose detectors hold them for likelier than not: bit l for lane l.

    That is where M_j < Lambda_j: the messages of the detectors, which are the difference, add up to less than 0.
    """
    signature = types.int64(posterior, bias, at)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        write = _Writer(builder)
        posterior, bias, at = _data(context, builder, signature, arguments)
        below = builder.fcmp_ordered("<", write.load(posterior, at), write.load(bias, at))
        return builder.zext(builder.bitcast(below, ir.IntType(LANES)), _LONG)

    return signature, code


@_instruction
def lowest_bit(typing_context, mask):  # type: ignore[no-untyped-def]
    """The place of the lowest bit that is set in an int64, which is not 0."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), code
