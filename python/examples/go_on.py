"""A worker is killed in the middle of training; the others go on in the same processes.

    build/bin/railccl run -n 4 --keep-going python3 python/examples/go_on.py
"""
import os
import signal
import threading
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import railccl.torch

STEPS, VICTIM, DIES_AT = 300, 1, 100


def batch(step, rank, size):
    """This worker's share of 48 samples of y = x . (1, -2, 3, -4)."""
    x = torch.randn(48, 4, generator=torch.Generator().manual_seed(step))
    return x[rank::size], (x @ torch.tensor([1.0, -2, 3, -4]))[rank::size]


def train(model):
    ddp, step, told = DistributedDataParallel(model), 0, None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    while step < STEPS:
        rank, size = dist.get_rank(), dist.get_world_size()
        if step == DIES_AT and rank == VICTIM and size == int(os.environ["WORLD_SIZE"]):
            threading.Timer(0.001, os.kill, (os.getpid(), signal.SIGKILL)).start()
        x, y = batch(step, rank, size)
        optimizer.zero_grad()
        began = time.monotonic()
        try:
            loss = (ddp(x).squeeze(1) - y).square().mean()
            loss.backward()
        except RuntimeError as error:
            told = time.monotonic()
            railccl.torch.shrink_group()  # all that are left call it
            ddp = DistributedDataParallel(model)  # wrapped again: everybody has rank 0's weights
            at = torch.tensor([step])
            dist.broadcast(at, 0)  # and goes on at rank 0's step
            step = int(at)
            if dist.get_rank() == 0:
                print(f"after {told - began:.3f} s: {str(error).splitlines()[0]}", flush=True)
            continue
        optimizer.step()
        step += 1
        if told and dist.get_rank() == 0:
            print(f"{time.monotonic() - told:.3f} s later {dist.get_world_size()} workers train on", flush=True)
        told = None
    return loss.item()


def main():
    torch.set_num_threads(1)
    dist.init_process_group("railccl")
    torch.manual_seed(7)
    loss = train(torch.nn.Linear(4, 1, bias=False))
    assert loss < 1e-6, loss
    if dist.get_rank() == 0:
        print(f"{dist.get_world_size()} workers have learned it", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
