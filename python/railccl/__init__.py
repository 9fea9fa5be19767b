"""railccl for Python.

    import railccl.torch                      # registers the backend
    torch.distributed.init_process_group("railccl")

`railccl.library` holds the C calls, `railccl.torch` the backend for torch.distributed. Nothing is loaded before it is
used; which libnccl.so.2 is taken is told by `railccl.library.path()`.
"""
