// axis_weights: weights[j] of a window of `size`, scaled to the sum 1; one block, in double. With the Gaussian
// g(d) = exp(-d^2 / (2 sigma^2)), a window is g(j - size / 2), or all images of the centre in a mirror at each edge,
// within four sigma, or 1.
//
// blur_axis: blurred[o, t, i] = sum over j of weights[j] * source[o, t + j - size / 2, i].
//
// source and blurred (outer, length, inner) with n_values values, weights (size); C-contiguous. A thread owns one
// value and adds its terms in order, the first weight first. Beyond the border lie zeros, or where mirrored is 1 the
// axis, mirrored about its outermost value, which is not repeated.

#ifndef REAL
#define REAL float
#endif

enum { WINDOW_GAUSSIAN, WINDOW_RISE, WINDOW_BOX };

__device__ double gauss(long long distance, double sigma)
{
    const double d = (double)distance;
    return exp(-(d * d) / (2 * sigma * sigma));
}

__device__ double power(long long j, long long size, double sigma, long long window)
{
    if (window == WINDOW_BOX)
        return 1;
    const long long centre = size / 2;
    if (window == WINDOW_GAUSSIAN)
        return gauss(j - centre, sigma);
    const long long reach = (long long)(4 * sigma + 0.5), period = 2 * size;
    double sum = 0;
    for (long long offset = -reach; offset <= reach; ++offset) {
        const long long place = ((centre + offset) % period + period) % period;
        if (place == j || period - 1 - place == j)
            sum += gauss(offset, sigma);
    }
    return sum;
}

extern "C" __global__ void axis_weights(REAL *weights, long long size, double sigma, long long window)
{
    __shared__ double sum;
    if (threadIdx.x == 0) {
        sum = 0;
        for (long long j = 0; j < size; ++j)
            sum += power(j, size, sigma, window);
    }
    __syncthreads();
    for (long long j = threadIdx.x; j < size; j += blockDim.x)
        weights[j] = (REAL)(power(j, size, sigma, window) / sum);
}

extern "C" __global__ void blur_axis(const REAL *source, const REAL *weights, REAL *blurred, long long n_values,
                                     long long length, long long inner, long long size, long long mirrored)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me >= n_values)
        return;
    const long long target = me / inner % length;
    const REAL *axis = source + (me - target * inner);

    const long long last = length - 1, period = last > 0 ? 2 * last : 1;
    REAL total = 0;
    for (long long j = 0; j < size; ++j) {
        const long long place = target + j - size / 2;
        long long pixel = (place + last) % period;  // C's remainder keeps the sign
        pixel = (pixel < 0 ? pixel + period : pixel) - last;
        const REAL value = mirrored || (place >= 0 && place < length) ? axis[(pixel < 0 ? -pixel : pixel) * inner] : 0;
        const REAL term = value * weights[j];
        total = j == 0 ? term : total + term;
    }
    blurred[me] = total;
}
