// impute: each missing pixel becomes the weighted mean of its eight neighbours, of which those missing count with their
// own new value. With weight 2 for a direct neighbour and 1 for a diagonal one, and total the sum of the weights of
// those that lie inside the picture, the unknowns u solve
//
//     total(i) u(i) - sum over missing neighbours j of weight(i, j) u(j) = sum over known j of weight(i, j) value(j)
//
// by conjugate gradients with the diagonal as preconditioner, in double whatever the type of the pixels. Values are
// scaled so that the known ones span -1 to 1. The matrix is never stored.
//
// When to stop: in the energy norm of the matrix the steps of conjugate gradients are orthogonal, so what a run of steps
// gained is nearly the whole error before it (Hestenes and Stiefel). A pixel's error is at most the root of the energy
// times its entry of the inverse's diagonal, which is the electrical resistance from the pixel to the known ones in a
// sheet of resistors: 2.2 from corner to corner of 512 x 512, n - 1 halves along a line; 2 + length / width is above all.
//
// A block owns one plane of one row; every sum has a fixed order.

#ifndef REAL
#define REAL float
#endif

#define THREADS 512
#define LANES 32
#define RUN 32  // steps between two looks at the error

// The sum and the maximum of one value a thread, the same for every thread: lanes first, then each thread all lanes.
__device__ double block_sum(double value, double *shared, double *lanes)
{
    const int me = threadIdx.x;
    shared[me] = value;
    __syncthreads();
    if (me < LANES) {
        double sum = 0;
        for (int i = me; i < THREADS; i += LANES)
            sum += shared[i];
        lanes[me] = sum;
    }
    __syncthreads();
    double total = 0;
    for (int i = 0; i < LANES; ++i)
        total += lanes[i];
    __syncthreads();
    return total;
}

__device__ double block_max(double value, double *shared, double *lanes)
{
    const int me = threadIdx.x;
    shared[me] = value;
    __syncthreads();
    if (me < LANES) {
        lanes[me] = shared[me];
        for (int i = me; i < THREADS; i += LANES)
            lanes[me] = shared[i] > lanes[me] ? shared[i] : lanes[me];
    }
    __syncthreads();
    double largest = lanes[0];
    for (int i = 1; i < LANES; ++i)
        largest = lanes[i] > largest ? lanes[i] : largest;
    __syncthreads();
    return largest;
}

// The weights of the neighbours inside the picture, summed.
__device__ double total_weight(long long y, long long x, long long height, long long width)
{
    const int rows = (y > 0) + (y + 1 < height), columns = (x > 0) + (x + 1 < width);
    return 2 * rows + 2 * columns + rows * columns;
}

// The weighted sum of the neighbours of pixel (y, x) in a plane.
__device__ double around(const double *plane, long long y, long long x, long long height, long long width)
{
    double sum = 0;
    for (long long row = y > 0 ? y - 1 : y; row <= y + 1 && row < height; ++row)
        for (long long column = x > 0 ? x - 1 : x; column <= x + 1 && column < width; ++column) {
            const int weight = (row == y ? 2 : 1) * (column == x ? 2 : 1);
            if (weight < 4)
                sum += weight * plane[row * width + column];
        }
    return sum;
}

// images (N, C, H, W) and imputed (B, C, H, W), or (N, H, W, C) and (B, H, W, C); a room has a plane for each block. Where
// rows are paired with images, `which` is not read. A plane that cannot be solved becomes NaN where pixels are missing.
extern "C" __global__ void impute(const REAL *images, const bool *missing, const long long *which, REAL *imputed,
                                  double *found_room, double *residual_room, double *direction_room, double *image_room,
                                  long long paired, long long n_channels, long long height, long long width,
                                  long long channels_last, long long max_steps, double tolerance)
{
    __shared__ double shared[THREADS], lanes[LANES];
    const long long n_pixels = height * width;
    const long long row = blockIdx.x / n_channels, channel = blockIdx.x % n_channels;
    const long long step = channels_last ? n_channels : 1, start = channels_last ? channel : channel * n_pixels;
    images += (paired ? row : which[row]) * n_channels * n_pixels + start;
    imputed += row * n_channels * n_pixels + start;
    missing += row * n_pixels;
    double *found = found_room + blockIdx.x * n_pixels, *residual = residual_room + blockIdx.x * n_pixels;
    double *direction = direction_room + blockIdx.x * n_pixels, *image = image_room + blockIdx.x * n_pixels;
    const long long me = threadIdx.x;
    const double infinity = 1.0 / 0.0;

    double largest = -infinity, least = -infinity, spoilt = 0;  // `least` is the smallest, negated
    for (long long i = me; i < n_pixels; i += THREADS)
        if (!missing[i]) {
            const double value = images[i * step];
            largest = value > largest ? value : largest;
            least = -value > least ? -value : least;
            spoilt += value - value;
        }
    const double high = block_max(largest, shared, lanes), low = -block_max(least, shared, lanes);
    const double span = high / 2 - low / 2, middle = low + span, unit = span == 0 ? 1 : span;
    const bool finite = block_sum(spoilt, shared, lanes) == 0 && span >= 0;  // no known pixel: the span is negative

    for (long long i = me; i < n_pixels; i += THREADS) {
        direction[i] = missing[i] || !finite ? 0 : (images[i * step] - middle) / unit;
        found[i] = 0;
    }
    __syncthreads();
    double sum = 0;
    for (long long i = me; i < n_pixels; i += THREADS) {
        const long long y = i / width, x = i % width;
        residual[i] = missing[i] ? around(direction, y, x, height, width) : 0;
        if (missing[i])
            sum += residual[i] * residual[i] / total_weight(y, x, height, width);
    }
    double energy = block_sum(sum, shared, lanes);
    for (long long i = me; i < n_pixels; i += THREADS)
        direction[i] = missing[i] ? residual[i] / total_weight(i / width, i % width, height, width) : 0;
    __syncthreads();

    const double resistance = 2 + (double)(height > width ? height : width) / (height > width ? width : height);
    const double little = 4 * tolerance * tolerance / resistance;
    bool solved = energy == 0;
    double gained = 0;
    for (long long k = 1; k <= max_steps && !solved; ++k) {
        sum = 0;
        for (long long i = me; i < n_pixels; i += THREADS)
            if (missing[i]) {
                const long long y = i / width, x = i % width;
                image[i] = total_weight(y, x, height, width) * direction[i] - around(direction, y, x, height, width);
                sum += direction[i] * image[i];
            }
        const double length = energy / block_sum(sum, shared, lanes);
        sum = 0;
        for (long long i = me; i < n_pixels; i += THREADS)
            if (missing[i]) {
                found[i] += length * direction[i];
                residual[i] -= length * image[i];
                sum += residual[i] * residual[i] / total_weight(i / width, i % width, height, width);
            }
        gained += length * energy;
        const double before = energy;
        energy = block_sum(sum, shared, lanes);
        for (long long i = me; i < n_pixels; i += THREADS)
            if (missing[i])
                direction[i] = residual[i] / total_weight(i / width, i % width, height, width)
                               + energy / before * direction[i];
        __syncthreads();
        if (k % RUN == 0) {
            solved = gained <= little;
            gained = 0;
        }
        solved = solved || energy <= little * 1e-12;  // a small system is exact before the run ends
    }

    for (long long i = me; i < n_pixels; i += THREADS) {
        double value = middle + unit * found[i];
        value = value < low ? low : value > high ? high : value;
        imputed[i * step] = !missing[i] ? images[i * step] : finite && solved ? (REAL)value : (REAL)(infinity - infinity);
    }
}
