"""The same as `import railccl.torch`, for programs that want one word."""
from railccl.torch import *  # noqa: F401,F403
