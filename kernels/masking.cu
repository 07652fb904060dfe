// fill_masks: out[row] = images[which[row]] * m + hidden * (1 - m), where m is made of map `row`.
//
// maps (B, h, w), images and out (., C, height, width), or (., height, width, C) where channels_last is 1; C-contiguous.
// Pixels of out and images are REAL, or what `pixel_kind` says: halves and bytes are written without a header of theirs.
// `hidden` is walked with a step for each axis, which is 0 along an axis that is broadcast.
//
// A block of COLUMNS x ROWS threads owns one row. Each thread samples the map at its share of the pixels to find the
// extremes, a tree joins them, then all threads sample it again and write. Nothing is kept in between, and every pixel
// is a function of the extremes alone, so the order of the threads does not show.

#ifndef REAL
#define REAL float
#endif

#define COLUMNS 32
#define ROWS 16
#define THREADS (COLUMNS * ROWS)

enum { SCALE_AFTER, SCALE_BEFORE, SCALE_RANGE, SCALE_NONE };
enum { PIXEL_REAL, PIXEL_FLOAT, PIXEL_HALF, PIXEL_BYTE };
enum { NOISE_NONE, NOISE_ON_MASK, NOISE_ON_INPUT };

__device__ REAL smaller(REAL a, REAL b)
{
    return a != a || a < b ? a : b;
}

__device__ REAL larger(REAL a, REAL b)
{
    return a > b ? a : b;
}

// ---- sampling, as in resizing.cu

struct Sample {
    long long low, high;  // the two sources
    REAL fraction;        // of the way from low to high
};

__device__ Sample sample(long long target, long long n_in, long long n_out, long long corners)
{
    long long numerator = corners ? target * (n_in - 1) : (2 * target + 1) * n_in - n_out;
    long long denominator = corners ? (n_out > 1 ? n_out - 1 : 1) : 2 * n_out;
    if (numerator < 0)
        numerator = 0;
    if (numerator > (n_in - 1) * denominator)
        numerator = (n_in - 1) * denominator;

    Sample s;
    s.low = numerator / denominator;
    s.high = s.low + 1 < n_in ? s.low + 1 : s.low;
    s.fraction = (REAL)(numerator % denominator) / (REAL)denominator;
    return s;
}

__device__ REAL interpolate(REAL low, REAL high, REAL fraction)
{
    return low + fraction * (high - low);
}

// ---- scaling

struct Scale {
    REAL low, span, eps;
    long long kind;  // SCALE_NONE until the extremes are known
    bool constant, finite;
};

__device__ REAL scaled(REAL value, const Scale &s)
{
    if (s.kind == SCALE_NONE)
        return value;
    if (s.constant)
        return 0;
    if (!s.finite)
        return s.span - s.span;  // inf - inf and NaN - NaN are NaN
    return (s.kind == SCALE_RANGE ? value : value - s.low) / (s.span + s.eps);
}

__device__ REAL at(const REAL *map, long long w, const Sample &y, const Sample &x, const Scale &cells)
{
    const REAL *low = map + y.low * w, *high = map + y.high * w;
    return interpolate(
        interpolate(scaled(low[x.low], cells), scaled(low[x.high], cells), x.fraction),
        interpolate(scaled(high[x.low], cells), scaled(high[x.high], cells), x.fraction), y.fraction);
}

// ---- pixels

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

__device__ REAL read_pixel(const unsigned char *pixels, long long i, long long kind)
{
    if (kind == PIXEL_HALF)
        return half_to_real(((const unsigned short *)pixels)[i]);
    if (kind == PIXEL_FLOAT)
        return (REAL)((const float *)pixels)[i];
    return kind == PIXEL_BYTE ? (REAL)pixels[i] : ((const REAL *)pixels)[i];
}

__device__ void write_pixel(unsigned char *pixels, long long i, long long kind, REAL value)
{
    if (kind == PIXEL_HALF)
        ((unsigned short *)pixels)[i] = real_to_half(value);
    else if (kind == PIXEL_FLOAT)
        ((float *)pixels)[i] = (float)value;
    else if (kind == PIXEL_BYTE)
        pixels[i] = (unsigned char)(value > 0 ? value < 255 ? rint(value) : 255 : 0);
    else
        ((REAL *)pixels)[i] = value;
}

extern "C" __global__ void fill_masks(unsigned char *out, const unsigned char *images, const long long *which,
                                      const REAL *maps, const REAL *noise, const long long *noise_of,
                                      const REAL *hidden, bool *constant, long long pixel_kind, long long channels,
                                      long long height, long long width, long long channels_last, long long h,
                                      long long w, long long corners, long long scaling, double eps, double gain,
                                      long long inverted, long long noise_on, double tolerance, long long has_hidden,
                                      long long image_step, long long channel_step, long long row_step,
                                      long long column_step)
{
    __shared__ REAL lows[THREADS], highs[THREADS];
    const long long row = blockIdx.x, n_pixels = height * width;
    const int me = threadIdx.y * COLUMNS + threadIdx.x;
    const REAL *map = maps + row * h * w;

    // the extremes: of the map's cells where they are scaled before the resize, else of the resized map
    const Scale unscaled = {0, 0, 0, SCALE_NONE, false, false};
    REAL low = scaling == SCALE_BEFORE ? map[0]
                                       : at(map, w, sample(0, h, height, corners), sample(0, w, width, corners),
                                            unscaled);
    REAL high = low;
    if (scaling == SCALE_BEFORE) {
        for (long long i = me; i < h * w; i += THREADS) {
            low = smaller(low, map[i]);
            high = larger(high, map[i]);
        }
    } else if (scaling != SCALE_NONE) {
        for (long long x = threadIdx.x; x < width; x += COLUMNS) {
            const Sample column = sample(x, w, width, corners);
            for (long long y = threadIdx.y; y < height; y += ROWS) {
                const REAL value = at(map, w, sample(y, h, height, corners), column, unscaled);
                low = smaller(low, value);
                high = larger(high, value);
            }
        }
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

    Scale scale = {low, high - low, (REAL)eps, scaling, false, false};
    scale.finite = scale.span - scale.span == 0;
    const REAL size = larger(low < 0 ? -low : low, high < 0 ? -high : high);
    scale.constant = scaling != SCALE_NONE && scale.finite && scale.span <= (REAL)tolerance * size;
    const Scale cells = scaling == SCALE_BEFORE ? scale : unscaled;
    const Scale pixels = scaling == SCALE_BEFORE ? unscaled : scale;

    const long long source = which[row] * channels * n_pixels, target = row * channels * n_pixels;
    const long long in_noise = noise_on == NOISE_NONE ? 0 : noise_of[row];
    const long long pixel_step = channels_last ? channels : 1, plane_step = channels_last ? 1 : n_pixels;
    for (long long x = threadIdx.x; x < width; x += COLUMNS) {
        const Sample column = sample(x, w, width, corners);
        for (long long y = threadIdx.y; y < height; y += ROWS) {
            const long long pixel = y * width + x;
            REAL m = (REAL)gain * scaled(at(map, w, sample(y, h, height, corners), column, cells), pixels);
            if (inverted)
                m = 1 - m;
            if (noise_on == NOISE_ON_MASK)
                m += noise[in_noise * n_pixels + pixel];
            for (long long c = 0; c < channels; ++c) {
                const long long place = pixel * pixel_step + c * plane_step;
                REAL value = read_pixel(images, source + place, pixel_kind) * m;
                if (has_hidden)
                    value += hidden[which[row] * image_step + c * channel_step + y * row_step + x * column_step] *
                             (1 - m);
                if (noise_on == NOISE_ON_INPUT)
                    value += noise[in_noise * channels * n_pixels + place];
                write_pixel(out, target + place, pixel_kind, value);
            }
        }
    }
    if (me == 0)
        constant[row] = scale.constant;
}
