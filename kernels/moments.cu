// pearson: r[row] = the correlation of a[row] and b[row], 0 where either is constant, and a flag for that.
// region_sums: inside[row] = the sum of maps[row] where regions[row] is not 0, total[row] = the sum of all.
// map_means: means[row] = the mean of maps[row].
//
// a, b, maps, regions (B, n_values); C-contiguous; one number a row comes out. A block of THREADS threads owns one row:
// each thread adds every THREADS-th value in double, a tree joins them, always in the same order.

#ifndef REAL
#define REAL float
#endif

#define THREADS 256

__device__ double smaller(double a, double b)
{
    return a != a || a < b ? a : b;
}

__device__ double larger(double a, double b)
{
    return a != a || a > b ? a : b;
}

// All threads of the block call these together and all get the result.

__device__ double sum_of_block(double mine, double *shared)
{
    const int me = threadIdx.x;
    shared[me] = mine;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half)
            shared[me] += shared[me + half];
        __syncthreads();
    }
    const double sum = shared[0];
    __syncthreads();
    return sum;
}

struct Row {
    double low, span, mean;  // the mean of (value - low) / span
    bool constant, finite;
};

__device__ double centred(REAL value, const Row &row)
{
    return row.finite ? ((double)value - row.low) / row.span - row.mean : row.span - row.span;
}

__device__ Row measure(const REAL *values, long long n_values, double tolerance, double *shared, double *spare)
{
    const int me = threadIdx.x;
    double low = values[0], high = values[0];
    for (long long i = me; i < n_values; i += THREADS) {
        low = smaller(low, values[i]);
        high = larger(high, values[i]);
    }
    shared[me] = low;
    spare[me] = high;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half) {
            shared[me] = smaller(shared[me], shared[me + half]);
            spare[me] = larger(spare[me], spare[me + half]);
        }
        __syncthreads();
    }
    low = shared[0];
    high = spare[0];
    __syncthreads();

    Row row = {low, high - low, 0, false, false};
    row.finite = row.span - row.span == 0;
    row.constant = row.finite && row.span <= tolerance * larger(fabs(low), fabs(high));
    double sum = 0;
    for (long long i = me; i < n_values; i += THREADS)
        sum += centred(values[i], row);
    row.mean = sum_of_block(sum, shared) / (double)n_values;
    return row;
}

extern "C" __global__ void pearson(const REAL *a, const REAL *b, double *r, bool *constant, long long n_values,
                                   double a_tolerance, double b_tolerance)
{
    __shared__ double shared[THREADS], spare[THREADS];
    a += blockIdx.x * n_values;
    b += blockIdx.x * n_values;
    const Row u = measure(a, n_values, a_tolerance, shared, spare);
    const Row v = measure(b, n_values, b_tolerance, shared, spare);
    double both = 0, first = 0, second = 0;
    for (long long i = threadIdx.x; i < n_values; i += THREADS) {
        const double x = centred(a[i], u), y = centred(b[i], v);
        both += x * y;
        first += x * x;
        second += y * y;
    }
    both = sum_of_block(both, shared);
    first = sum_of_block(first, shared);
    second = sum_of_block(second, shared);
    if (threadIdx.x == 0) {
        const double value = both / sqrt(first * second);
        constant[blockIdx.x] = u.constant || v.constant;
        r[blockIdx.x] = u.constant || v.constant ? 0 : value > 1 ? 1 : value < -1 ? -1 : value;
    }
}

extern "C" __global__ void region_sums(const REAL *maps, const unsigned char *regions, double *inside, double *total,
                                       long long n_values)
{
    __shared__ double shared[THREADS];
    const long long offset = blockIdx.x * n_values;
    double some = 0, all = 0;
    for (long long i = threadIdx.x; i < n_values; i += THREADS) {
        some += regions[offset + i] ? (double)maps[offset + i] : 0;
        all += (double)maps[offset + i];
    }
    some = sum_of_block(some, shared);
    all = sum_of_block(all, shared);
    if (threadIdx.x == 0) {
        inside[blockIdx.x] = some;
        total[blockIdx.x] = all;
    }
}

extern "C" __global__ void map_means(const REAL *maps, double *means, long long n_values)
{
    __shared__ double shared[THREADS];
    double sum = 0;
    for (long long i = threadIdx.x; i < n_values; i += THREADS)
        sum += (double)maps[blockIdx.x * n_values + i];
    sum = sum_of_block(sum, shared);
    if (threadIdx.x == 0)
        means[blockIdx.x] = sum / (double)n_values;
}
