// min_max: scaled = (map - min) / (max - min) for each map, and a flag for each constant map.
//
// maps and scaled (N, Z) with Z = h*w, degenerate (N,); C-contiguous; scaled may be maps itself. A block of THREADS
// threads owns one map: each thread finds the extremes of every THREADS-th pixel, a tree joins them, then all rescale.
// A NaN wins every search for the smallest, and a map that is not finite throughout ends as NaN throughout.

#ifndef REAL
#define REAL float
#endif

#define THREADS 512

__device__ REAL smaller(REAL a, REAL b)
{
    return a != a || a < b ? a : b;
}

__device__ REAL larger(REAL a, REAL b)
{
    return a > b ? a : b;
}

extern "C" __global__ void min_max(const REAL *maps, REAL *scaled, bool *degenerate, long long n_pixels,
                                   double tolerance)
{
    __shared__ REAL lows[THREADS], highs[THREADS];
    const long long offset = blockIdx.x * n_pixels;
    const int me = threadIdx.x;

    REAL low = maps[offset], high = low;
    for (long long i = me; i < n_pixels; i += THREADS) {
        low = smaller(low, maps[offset + i]);
        high = larger(high, maps[offset + i]);
    }
    lows[me] = low;
    highs[me] = high;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half) {
            lows[me] = smaller(lows[me], lows[me + half]);
            highs[me] = larger(highs[me], highs[me + half]);
        }
        __syncthreads();
    }
    low = lows[0];
    high = highs[0];

    const REAL span = high - low;
    const bool finite = span - span == 0;
    const REAL size = larger(low < 0 ? -low : low, high < 0 ? -high : high);
    const bool constant = finite && span <= (REAL)tolerance * size;
    for (long long i = me; i < n_pixels; i += THREADS) {
        const REAL value = (maps[offset + i] - low) / span;
        scaled[offset + i] = constant ? (REAL)0 : finite ? value : span - span;  // inf - inf and NaN - NaN are NaN
    }
    if (me == 0)
        degenerate[blockIdx.x] = constant;
}
