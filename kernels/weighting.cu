// weighted_sum: maps[n, z] = sum over k of weights[n, k] * acts[n, k, z], optionally with negative sums set to zero.
//
// acts (N, K, Z) with Z = h*w, maps (N, Z), weights (N, K), or (N, K, Z) where per_cell is 1; C-contiguous.
// A block owns CELLS neighbouring cells of one image: blockIdx.x counts images, then tiles of CELLS cells.
// Its SLICES rows of threads each add up every SLICES-th channel; then the first row adds the rows, top to bottom.
// The order of additions is fixed, so equal input gives equal bits.

#ifndef REAL
#define REAL float
#endif

#define CELLS 32
#define SLICES 16

extern "C" __global__ void weighted_sum(const REAL *acts, const REAL *weights, REAL *maps, long long n_channels,
                                        long long n_cells, long long per_cell, long long relu)
{
    __shared__ REAL partial[SLICES][CELLS];

    const long long n_tiles = (n_cells + CELLS - 1) / CELLS;
    const long long image = blockIdx.x / n_tiles;
    const long long cell = blockIdx.x % n_tiles * CELLS + threadIdx.x;

    REAL total = 0;
    if (cell < n_cells) {
        for (long long k = threadIdx.y; k < n_channels; k += SLICES) {
            const long long channel = image * n_channels + k;
            const REAL weight = per_cell ? weights[channel * n_cells + cell] : weights[channel];
            total += weight * acts[channel * n_cells + cell];
        }
    }
    partial[threadIdx.y][threadIdx.x] = total;
    __syncthreads();

    if (threadIdx.y == 0 && cell < n_cells) {
        for (int slice = 1; slice < SLICES; ++slice)
            total += partial[slice][threadIdx.x];
        maps[image * n_cells + cell] = relu && total < 0 ? (REAL)0 : total;  // NaN < 0 is false: NaN stays
    }
}
