// wipe_channels: out[row] = acts[which[row]], with channel channels[row] set to values[row].
// keep_cells:    out[row] = 0, but for the cell cells[row] = y*w + x of acts[which[row]], or for its copies around it:
//                out[row, :, y + i, x + j] = weights[i, j] * acts[which[row], :, y, x] where has_weights is 1.
//
// acts (N, K, h, w) and out (B, K, h, w), C-contiguous; REAL, or halves where is_half is 1. A thread writes one element.

#ifndef REAL
#define REAL float
#endif

// ---- halves without a header of theirs, as in masking.cu

__device__ REAL half_to_real(unsigned short bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const REAL infinity = ldexp((REAL)1, 2000);
    REAL size;
    if (exponent == 31)
        size = fraction ? infinity - infinity : infinity;
    else if (exponent == 0)
        size = ldexp((REAL)fraction, -24);
    else
        size = ldexp((REAL)(fraction + 1024), exponent - 25);
    return bits >> 15 ? -size : size;
}

__device__ unsigned short real_to_half(REAL value)
{
    if (value != value)
        return 0x7e00;
    const unsigned short sign = copysign((REAL)1, value) < 0 ? 0x8000 : 0;
    const REAL size = fabs(value);
    if (size >= 65520)  // half-way from the largest half to the next power of two
        return sign | 0x7c00;
    int power = -14;
    if (size >= ldexp((REAL)1, -14)) {
        frexp(size, &power);
        power -= 1;  // 2^power <= size < 2^(power + 1)
    }
    // steps of 2^(power - 10), ties to even: 1024 to 2048 of them, less for a subnormal; 2048 carries into the exponent
    const int steps = (int)rint(ldexp(size, 10 - power));
    return sign | (unsigned short)(((power + 14) << 10) + steps);
}

__device__ REAL read(const unsigned char *values, long long i, long long is_half)
{
    return is_half ? half_to_real(((const unsigned short *)values)[i]) : ((const REAL *)values)[i];
}

__device__ void write(unsigned char *values, long long i, long long is_half, REAL value)
{
    if (is_half)
        ((unsigned short *)values)[i] = real_to_half(value);
    else
        ((REAL *)values)[i] = value;
}

extern "C" __global__ void wipe_channels(unsigned char *out, const unsigned char *acts, const long long *which,
                                         const long long *channels, const REAL *values, long long n_elements,
                                         long long n_channels, long long h, long long w, long long is_half)
{
    const long long element = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (element >= n_elements)
        return;
    const long long image_size = n_channels * h * w;
    const long long row = element / image_size, place = element % image_size;
    const bool wiped = place / (h * w) == channels[row];
    write(out, element, is_half, wiped ? values[row] : read(acts, which[row] * image_size + place, is_half));
}

extern "C" __global__ void keep_cells(unsigned char *out, const unsigned char *acts, const long long *which,
                                      const long long *cells, const REAL *weights, long long n_elements,
                                      long long n_channels, long long h, long long w, long long is_half,
                                      long long has_weights)
{
    const long long element = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (element >= n_elements)
        return;
    const long long x = element % w, y = element / w % h, channel = element / (h * w) % n_channels;
    const long long row = element / (h * w) / n_channels, cell = cells[row];
    const long long down = y - cell / w, right = x - cell % w, reach = has_weights;
    REAL value = 0;
    if (down >= -reach && down <= reach && right >= -reach && right <= reach) {
        value = read(acts, (which[row] * n_channels + channel) * h * w + cell, is_half);
        if (has_weights)
            value = weights[(down + 1) * 3 + right + 1] * value;
    }
    write(out, element, is_half, value);
}
