// The part of CUDA's language that our kernels use, for a C++ compiler: a kernel runs on the CPU, block after block.
//
// Each thread of a block is a fibre. __syncthreads() hands control back, and no fibre goes on before every other one
// has come to the same barrier: shared memory behaves as on a device. A barrier that some threads of the block miss
// is reported. Running the fibres in reverse order as well brings out a missing barrier.

#include <math.h>
#include <stdlib.h>
#include <ucontext.h>

#define __global__
#define __device__ static
#define __shared__ static

struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

struct Fibre {
    ucontext_t context;
    bool done;
};
static const int STACK_BYTES = 32768;  // the kernels keep a few numbers each
static const int MAX_THREADS = 1024;   // CUDA's limit for a block
static Fibre fibres[MAX_THREADS];
static char *stacks;
static ucontext_t scheduler;
static Fibre *current;
static void (*call)(void *);
static void *call_arguments;

static void __syncthreads()
{
    swapcontext(&current->context, &scheduler);
}

static void fibre_main()
{
    call(call_arguments);
    current->done = true;
}

static bool run_block(int n_threads, bool reverse)
{
    for (int i = 0; i < n_threads; ++i) {
        getcontext(&fibres[i].context);
        fibres[i].context.uc_stack.ss_sp = stacks + (size_t)i * STACK_BYTES;
        fibres[i].context.uc_stack.ss_size = STACK_BYTES;
        fibres[i].context.uc_link = &scheduler;
        fibres[i].done = false;
        makecontext(&fibres[i].context, fibre_main, 0);
    }
    for (;;) {
        int n_done = 0;
        for (int step = 0; step < n_threads; ++step) {
            const int i = reverse ? n_threads - 1 - step : step;
            current = &fibres[i];
            threadIdx = {i % blockDim.x, i / blockDim.x, 0};
            if (!current->done)
                swapcontext(&scheduler, &current->context);
            n_done += current->done;
        }
        if (n_done == n_threads)
            return true;
        if (n_done > 0)
            return false;  // some threads ended where others wait at a barrier
    }
}

// Runs a row of blocks; 0 if all went well, 1 where a barrier was missed by part of a block.
static int run(long long n_blocks, int width, int height, int reverse, void (*kernel)(void *), void *arguments)
{
    if (!stacks)
        stacks = (char *)malloc((size_t)MAX_THREADS * STACK_BYTES);
    call = kernel;
    call_arguments = arguments;
    gridDim = {(unsigned)n_blocks, 1, 1};
    blockDim = {(unsigned)width, (unsigned)height, 1};
    for (long long block = 0; block < n_blocks; ++block) {
        blockIdx = {(unsigned)block, 0, 0};
        if (!run_block(width * height, reverse))
            return 1;
    }
    return 0;
}
