/* elf_seed.c - the smallest libraries for fuzz_elf to begin with: built without libc, with either hash table. */
int ncclGetVersion(int *version);
int railGetVersion(int *version);
int ncclGetVersion(int *version) { return *version = 23007, 0; }
int railGetVersion(int *version) { return ncclGetVersion(version); }
