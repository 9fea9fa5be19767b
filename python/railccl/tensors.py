"""From torch's tensors to addresses, counts and types of the C calls, and back.

A tensor that is contiguous is used where it lies. Any other is copied into a contiguous one before the call, and copied
back after it. Everything here that copies runs on the channel's thread.
"""
import ctypes

import torch

from railccl import library

_TYPES = {
    torch.int8: library.INT8, torch.uint8: library.UINT8, torch.int32: library.INT32, torch.int64: library.INT64,
    torch.float16: library.FLOAT16, torch.float32: library.FLOAT32, torch.float64: library.FLOAT64,
    torch.bfloat16: library.BFLOAT16,
}
for _name, _type in {"uint32": library.UINT32, "uint64": library.UINT64, "float8_e4m3fn": library.FLOAT8E4M3,
                     "float8_e5m2": library.FLOAT8E5M2}.items():
    if hasattr(torch, _name):
        _TYPES[getattr(torch, _name)] = _type
_WIDER = {torch.int16: torch.int32}  # NCCL has no 16-bit integers
if hasattr(torch, "uint16"):
    _WIDER[torch.uint16] = torch.int32

_OPERATORS = {"SUM": library.SUM, "PRODUCT": library.PROD, "MAX": library.MAX, "MIN": library.MIN, "AVG": library.AVG,
              "PREMUL_SUM": None}
_OF_BOOL = {"SUM": library.MAX, "PRODUCT": library.MIN, "MAX": library.MAX, "MIN": library.MIN}
_OF_COMPLEX = ("SUM", "AVG", "PREMUL_SUM")


def check(call, tensor):
    """ValueError unless the C calls can reach its elements."""
    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"railccl: {call}: expected a tensor, got {type(tensor).__name__}")
    if tensor.device.type != "cpu":
        raise ValueError(f"railccl: {call}: the tensor is on {tensor.device}; this backend works on CPU tensors")
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"railccl: {call}: sparse and quantized tensors are not offered; make it dense first")
    return tensor.detach()


def is_plain(tensor):
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def readable(tensor):
    """The same elements, contiguous."""
    return tensor if is_plain(tensor) else tensor.resolve_conj().resolve_neg().contiguous()


def writable(tensor):
    """A contiguous tensor to write to; give_back() afterwards."""
    return tensor if is_plain(tensor) else torch.empty(tensor.shape, dtype=tensor.dtype)


def give_back(tensor, written):
    if written is not tensor:
        tensor.copy_(written.view(tensor.shape))


def as_moved(tensor):
    """(count, type) for calls that only move: types that NCCL lacks travel as bytes."""
    known = _TYPES.get(tensor.dtype)
    if known is not None:
        return tensor.numel(), known
    return tensor.numel() * tensor.element_size(), library.UINT8


def adjacent(tensors):
    """They lie one behind the other in memory, as pieces of one buffer do."""
    at = tensors[0].data_ptr()
    for tensor in tensors:
        if not is_plain(tensor) or tensor.data_ptr() != at:
            return False
        at += tensor.numel() * tensor.element_size()
    return True


def even(tensors):
    return all(tensor.numel() == tensors[0].numel() for tensor in tensors)


def _spanning(tensors):
    """The buffer that adjacent tensors are pieces of, as one tensor."""
    first = tensors[0]
    n = sum(tensor.numel() for tensor in tensors)
    memory = first.untyped_storage() if hasattr(first, "untyped_storage") else first.storage()
    if (first.storage_offset() + n) * first.element_size() <= memory.nbytes():
        return first.as_strided((n,), (1,))
    return None  # neighbours by chance, of different storages


def joined(tensors):
    """One contiguous tensor with the elements of all: the buffer they are pieces of, or a copy."""
    whole = _spanning(tensors) if adjacent(tensors) else None
    return torch.cat([readable(tensor).view(-1) for tensor in tensors]) if whole is None else whole


def room_for(tensors):
    """A contiguous tensor for the elements of all: their own buffer, or a new one; hand_out() afterwards."""
    whole = _spanning(tensors) if adjacent(tensors) else None
    n = sum(tensor.numel() for tensor in tensors)
    return torch.empty(n, dtype=tensors[0].dtype) if whole is None else whole


def hand_out(tensors, buffer):
    if tensors[0].data_ptr() == buffer.data_ptr():
        return
    at = 0
    for tensor in tensors:
        tensor.copy_(buffer[at:at + tensor.numel()].view(tensor.shape))
        at += tensor.numel()


def split_rows(tensor, rows):
    """The contiguous tensor in pieces of so many rows."""
    return list(tensor.split(rows)) if tensor.dim() else [tensor] * len(rows)


class Reduction:
    """How to reduce tensors of one type with one of torch's operators. ValueError says what is not offered."""

    def __init__(self, call, reduce_op, dtype):
        kind = getattr(reduce_op, "op", reduce_op)
        name = kind.name
        if name not in _OPERATORS:
            raise ValueError(f"railccl: {call}: ReduceOp.{name} is not offered: NCCL has no bitwise operators; "
                             "use SUM, AVG, PRODUCT, MIN, MAX or PREMUL_SUM, or a gloo group for this call")
        self.op, self._factor = _OPERATORS[name], None
        self._as, self._wide = None, None  # the same bytes as another type; another, wider type
        if dtype is torch.bool:
            if name not in _OF_BOOL:
                raise ValueError(f"railccl: {call}: ReduceOp.{name} of bool means nothing; convert to a number first")
            self.op, self._as = _OF_BOOL[name], torch.uint8
        elif dtype.is_complex:
            if name not in _OF_COMPLEX:
                raise ValueError(f"railccl: {call}: complex numbers have no ReduceOp.{name} here; reduce their parts")
            self._as = "real"
        elif dtype in _WIDER:
            self._wide = _WIDER[dtype]
        elif dtype not in _TYPES:
            raise ValueError(f"railccl: {call}: there is no arithmetic for {dtype}; convert it to float32 or int64")
        if name == "PREMUL_SUM":
            self._factor = _factor_of(call, reduce_op)

    def elements(self, tensor):
        """The contiguous `tensor` as what the C call reduces; a copy only where the type is widened."""
        if self._wide is not None:
            return tensor.to(self._wide)
        if self._as == "real":
            return torch.view_as_real(tensor)
        return tensor if self._as is None else tensor.view(self._as)

    def must_copy(self):
        return self._wide is not None

    def with_op(self, comm, elements, call):
        """call(op) with the operator, which is made for this one call if it must be."""
        if self._factor is None:
            call(self.op)
            return
        factor = self._factor.to(elements.dtype) if isinstance(self._factor, torch.Tensor) else \
            torch.tensor([self._factor], dtype=elements.dtype)
        made = ctypes.c_int()
        library.call("ncclRedOpCreatePreMulSum", ctypes.byref(made), factor.data_ptr(), _TYPES[elements.dtype],
                     library.SCALAR_HOST_IMMEDIATE, comm)
        try:
            call(made.value)
        finally:
            library.call("ncclRedOpDestroy", made.value, comm)

    @staticmethod
    def type_of(elements):
        return _TYPES[elements.dtype]


def _factor_of(call, reduce_op):
    """torch keeps the factor to itself; only its pickling shows it."""
    state = reduce_op.__getstate__() if hasattr(reduce_op, "__getstate__") else None
    if not isinstance(state, tuple) or len(state) != 2:
        raise ValueError(f"railccl: {call}: torch {torch.__version__} does not tell the factor of PREMUL_SUM; "
                         "multiply the tensor yourself and use SUM")
    return state[1]
