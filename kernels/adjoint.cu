// Gradients of resize and of min_max; maps are C-contiguous, sums are in double and in a fixed order.
//
// resize_adjoint_axis: carried[o, s, i] = sum over t of weight(t, s) * gradients[o, t, i], along one axis of n_out
// targets and n_in sources, where weight(t, s) is the share of source s in target t:
//
//     half pixel   source = (target + 1/2) * n_in / n_out - 1/2
//     corners      source = target * (n_in - 1) / (n_out - 1), or 0 where n_out is 1
//
// min_max_gradient: with D = max - min, M = (map - min) / D and Q the gradient at M,
//
//     carried = Q / D - [at the first smallest] sum(Q (1 - M)) / D - [at the first largest] sum(Q M) / D

#ifndef REAL
#define REAL float
#endif

#define THREADS 512

__device__ long long ceiling(long long numerator, long long denominator)
{
    return numerator <= 0 ? 0 : (numerator + denominator - 1) / denominator;
}

// A thread owns one value of carried (outer, n_in, inner); gradients (outer, n_out, inner).
extern "C" __global__ void resize_adjoint_axis(const REAL *gradients, REAL *carried, long long n_values,
                                               long long n_out, long long n_in, long long inner, long long corners)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me >= n_values)
        return;
    const long long source = me / inner % n_in;
    const REAL *axis = gradients + (me / inner / n_in * n_out * inner + me % inner);

    // the first target whose lower source is at least the one before; from there on lower sources only grow
    long long target = 0;
    if (source > 1)
        target = corners ? ceiling((source - 1) * (n_out - 1), n_in - 1)
                         : ceiling(n_out * (2 * source - 1) - n_in, 2 * n_in);

    const long long denominator = corners ? (n_out > 1 ? n_out - 1 : 1) : 2 * n_out;
    double sum = 0;
    for (; target < n_out; ++target) {
        long long numerator = corners ? target * (n_in - 1) : (2 * target + 1) * n_in - n_out;
        if (numerator < 0)
            numerator = 0;
        if (numerator > (n_in - 1) * denominator)
            numerator = (n_in - 1) * denominator;
        const long long low = numerator / denominator;
        if (low > source)
            break;
        const REAL fraction = (REAL)(numerator % denominator) / (REAL)denominator;
        const REAL weight = low == source ? (REAL)1 - fraction : low + 1 == source ? fraction : (REAL)0;
        if (weight != 0)
            sum += (double)weight * axis[target * inner];
    }
    carried[me] = (REAL)sum;
}

// A block of THREADS threads owns one map of n_pixels. A NaN is both the smallest and the largest.
extern "C" __global__ void min_max_gradient(const REAL *maps, const REAL *gradients, REAL *carried,
                                            long long n_pixels, double tolerance)
{
    __shared__ long long lowest[THREADS], highest[THREADS];
    __shared__ double whole[THREADS], risen[THREADS];
    const int me = threadIdx.x;
    maps += blockIdx.x * n_pixels;
    gradients += blockIdx.x * n_pixels;
    carried += blockIdx.x * n_pixels;

    lowest[me] = highest[me] = me < n_pixels ? me : 0;
    for (long long i = me; i < n_pixels; i += THREADS) {
        const REAL value = maps[i];
        if (value < maps[lowest[me]] || value != value)
            lowest[me] = i;
        if (value > maps[highest[me]] || value != value)
            highest[me] = i;
    }
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half) {
            long long mine = lowest[me], other = lowest[me + half];
            REAL a = maps[mine], b = maps[other];
            if (b < a || b != b || (b == a && other < mine))
                lowest[me] = other;
            mine = highest[me], other = highest[me + half];
            a = maps[mine], b = maps[other];
            if (b > a || b != b || (b == a && other < mine))
                highest[me] = other;
        }
        __syncthreads();
    }
    const long long first = lowest[0], last = highest[0];
    const REAL low = maps[first], high = maps[last], span = high - low;
    const REAL size = (low < 0 ? -low : low) > (high < 0 ? -high : high) ? (low < 0 ? -low : low) : (high < 0 ? -high : high);

    double sum = 0, rise = 0;
    for (long long i = me; i < n_pixels; i += THREADS) {
        sum += gradients[i];
        rise += (double)gradients[i] * (maps[i] - low);
    }
    whole[me] = sum;
    risen[me] = rise;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half) {
            whole[me] += whole[me + half];
            risen[me] += risen[me + half];
        }
        __syncthreads();
    }

    const bool finite = span - span == 0;
    const bool constant = finite && span <= (REAL)tolerance * size;
    const double above = risen[0] / span;
    for (long long i = me; i < n_pixels; i += THREADS) {
        REAL value = gradients[i] / span;
        if (i == first)
            value -= (REAL)((whole[0] - above) / span);
        if (i == last)
            value -= (REAL)(above / span);
        carried[i] = constant ? (REAL)0 : finite ? value : span - span;  // inf - inf and NaN - NaN are NaN
    }
}
