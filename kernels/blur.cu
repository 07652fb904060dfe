// gaussian_weights: weights[j] = exp(-(j - size / 2)^2 / (2 sigma^2)), scaled to the sum 1; one block, in double.
//
// blur_axis: blurred[o, t, i] = sum over j of weights[j] * source[o, mirrored(t + j - size / 2), i].
//
// source and blurred (outer, length, inner) with n_values values, weights (size); C-contiguous. A thread owns one
// value and adds its terms in order, the first weight first. Beyond the border the axis is mirrored about its
// outermost value, which is not repeated.

#ifndef REAL
#define REAL float
#endif

__device__ double power(long long j, long long size, double sigma)
{
    const double distance = (double)(j - size / 2);
    return exp(-(distance * distance) / (2 * sigma * sigma));
}

extern "C" __global__ void gaussian_weights(REAL *weights, long long size, double sigma)
{
    __shared__ double sum;
    if (threadIdx.x == 0) {
        sum = 0;
        for (long long j = 0; j < size; ++j)
            sum += power(j, size, sigma);
    }
    __syncthreads();
    for (long long j = threadIdx.x; j < size; j += blockDim.x)
        weights[j] = (REAL)(power(j, size, sigma) / sum);
}

extern "C" __global__ void blur_axis(const REAL *source, const REAL *weights, REAL *blurred, long long n_values,
                                     long long length, long long inner, long long size)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me >= n_values)
        return;
    const long long target = me / inner % length;
    const REAL *axis = source + (me - target * inner);

    const long long last = length - 1, period = last > 0 ? 2 * last : 1;
    REAL total = 0;
    for (long long j = 0; j < size; ++j) {
        long long pixel = (target + j - size / 2 + last) % period;  // C's remainder keeps the sign
        pixel = (pixel < 0 ? pixel + period : pixel) - last;
        const REAL term = axis[(pixel < 0 ? -pixel : pixel) * inner] * weights[j];
        total = j == 0 ? term : total + term;
    }
    blurred[me] = total;
}
