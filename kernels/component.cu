// leading_component: S = M v1 for each image, M its Z x K matrix of cells by channels, v1 the first right singular
// vector; and M's two largest singular values. Four kernels, launched in this order, all sums in double:
//
//     channel_moments   each channel's mean over the cells (0 unless centred) and its sum of squares
//     gram              the Gram matrix of M's smaller side: M M' (Z x Z) if Z <= K, else M' M (K x K)
//     leading_pair      its two largest eigenvalues and the eigenvector of the first
//     project           S, its sign, and the rules for zero and non-finite input
//
// tensor (N, K, Z) with Z = h*w, C-contiguous. Every sum has a fixed order, so equal input gives equal bits.

#ifndef REAL
#define REAL float
#endif

#define LANES 32
#define TILE 16
#define THREADS 256

#define MAX_SQUARINGS 32  // 2^32 powers part eigenvalues that differ by 1e-9 of their size; closer ones are a tie

// One block of LANES threads a channel: means and energies (N, K).
extern "C" __global__ void channel_moments(const REAL *tensor, double *means, double *energies, long long n_cells,
                                           long long center)
{
    __shared__ double sums[LANES], squares[LANES];
    const REAL *cells = tensor + blockIdx.x * n_cells;
    const int me = threadIdx.x;

    double sum = 0, square = 0;
    for (long long z = me; z < n_cells; z += LANES) {
        const double value = cells[z];
        sum += value;
        square += value * value;
    }
    sums[me] = sum;
    squares[me] = square;
    __syncthreads();
    for (int half = LANES / 2; half > 0; half /= 2) {
        if (me < half) {
            sums[me] += sums[me + half];
            squares[me] += squares[me + half];
        }
        __syncthreads();
    }
    if (me == 0) {
        means[blockIdx.x] = center ? sums[0] / n_cells : 0;
        energies[blockIdx.x] = squares[0];
    }
}

// Entry `depth` of row `row` of the matrix whose rows are multiplied: rows are M's shorter side; 0 outside.
__device__ double entry(const REAL *tensor, const double *means, long long row, long long depth, long long n_channels,
                        long long n_cells)
{
    const long long channel = n_cells <= n_channels ? depth : row;
    const long long cell = n_cells <= n_channels ? row : depth;
    if (channel >= n_channels || cell >= n_cells)
        return 0;
    return tensor[channel * n_cells + cell] - means[channel];
}

// One block of TILE x TILE threads a tile of one image's Gram matrix; grams (N, side, side).
extern "C" __global__ void gram(const REAL *tensor, const double *means, double *grams, long long n_channels,
                                long long n_cells)
{
    __shared__ double left[TILE][TILE + 1], right[TILE][TILE + 1];
    const long long side = n_cells <= n_channels ? n_cells : n_channels;
    const long long depth = n_cells <= n_channels ? n_channels : n_cells;
    const long long n_tiles = (side + TILE - 1) / TILE;
    const long long image = blockIdx.x / (n_tiles * n_tiles);
    const long long top = blockIdx.x / n_tiles % n_tiles * TILE;
    const long long edge = blockIdx.x % n_tiles * TILE;
    tensor += image * n_channels * n_cells;
    means += image * n_channels;

    double total = 0;
    for (long long start = 0; start < depth; start += TILE) {
        left[threadIdx.y][threadIdx.x] =
            entry(tensor, means, top + threadIdx.y, start + threadIdx.x, n_channels, n_cells);
        right[threadIdx.y][threadIdx.x] =
            entry(tensor, means, edge + threadIdx.y, start + threadIdx.x, n_channels, n_cells);
        __syncthreads();
        for (int j = 0; j < TILE; ++j)
            total += left[threadIdx.y][j] * right[threadIdx.x][j];
        __syncthreads();
    }
    const long long row = top + threadIdx.y, column = edge + threadIdx.x;
    if (row < side && column < side)
        grams[(image * side + row) * side + column] = total;
}

// The sum of one value a thread, the same for every thread of the block.
__device__ double block_sum(double value, double *shared)
{
    shared[threadIdx.x] = value;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half)
            shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    const double total = shared[0];
    __syncthreads();
    return total;
}

__device__ double trace(const double *matrix, long long n, double *shared)
{
    double sum = 0;
    for (long long i = threadIdx.x; i < n; i += THREADS)
        sum += matrix[i * n + i];
    return block_sum(sum, shared);
}

// result = source * source / scale for a symmetric n x n source; the lower half is computed, the upper mirrored.
__device__ void square(const double *source, double *result, long long n, double scale)
{
    for (long long i = threadIdx.x; i < n * n; i += THREADS) {
        const long long row = i / n, column = i % n;
        if (column > row)
            continue;
        double sum = 0;
        for (long long j = 0; j < n; ++j)
            sum += source[j * n + row] * source[j * n + column];
        result[row * n + column] = result[column * n + row] = sum / scale;
    }
    __syncthreads();
}

// Writes the leading unit eigenvector of a symmetric, positive semidefinite n x n matrix and returns its eigenvalue.
//
// With trace 1, squaring leaves the leading eigenvector's projector: the eigenvalue ratios square each time. It is
// reached when trace(P^2) / trace(P)^2 is 1, or stands still because the largest eigenvalues are equal. Any of the
// projector's columns is the vector; one product with the matrix itself then takes the rounding of the squarings out.
__device__ double leading_eigenpair(const double *matrix, double *scratch, double *vector, double *product,
                                    long long n, double *shared)
{
    __shared__ long long largest;
    double *current = scratch, *next = scratch + n * n;
    double size = trace(matrix, n, shared);
    for (long long i = threadIdx.x; i < n * n; i += THREADS)
        current[i] = matrix[i] / size;
    __syncthreads();

    double before = 0;
    for (int step = 0; step < MAX_SQUARINGS; ++step) {
        double sum = 0;
        for (long long i = threadIdx.x; i < n * n; i += THREADS)
            sum += current[i] * current[i];
        const double purity = block_sum(sum, shared);  // trace(P^2); trace(P) is 1
        if (!(purity < 1 - 1e-15) || purity - before <= 1e-15 * purity)
            break;
        before = purity;
        square(current, next, n, purity);
        double *swap = current;
        current = next;
        next = swap;
    }

    if (threadIdx.x == 0) {
        largest = 0;
        for (long long i = 1; i < n; ++i)
            if (current[i * n + i] > current[largest * n + largest])
                largest = i;
    }
    __syncthreads();
    double sum = 0;
    for (long long i = threadIdx.x; i < n; i += THREADS) {
        vector[i] = current[largest * n + i];
        sum += vector[i] * vector[i];
    }
    size = sqrt(block_sum(sum, shared));
    for (long long i = threadIdx.x; i < n; i += THREADS)
        vector[i] /= size;
    __syncthreads();

    double inner = 0, square_sum = 0;
    for (long long i = threadIdx.x; i < n; i += THREADS) {
        double total = 0;
        for (long long j = 0; j < n; ++j)
            total += matrix[j * n + i] * vector[j];
        product[i] = total;
        inner += total * vector[i];
        square_sum += total * total;
    }
    const double value = block_sum(inner, shared);
    size = sqrt(block_sum(square_sum, shared));
    for (long long i = threadIdx.x; i < n; i += THREADS)
        vector[i] = product[i] / size;
    __syncthreads();
    return value;
}

// One block a Gram matrix (N, n, n): squares (N, 2) its two largest eigenvalues, vectors (N, 3, n) the two
// eigenvectors and a work row, scratch (N, 2, n, n). The Gram matrix is altered: its leading part is taken out.
extern "C" __global__ void leading_pair(double *grams, double *scratch, double *vectors, double *squares, long long n)
{
    __shared__ double shared[THREADS];
    double *matrix = grams + blockIdx.x * n * n;
    double *leading = vectors + blockIdx.x * 3 * n, *second = leading + n, *work = leading + 2 * n;
    scratch += blockIdx.x * 2 * n * n;

    const double size = trace(matrix, n, shared);
    double largest = 0, next = 0;
    if (size > 0 && size - size == 0) {
        largest = leading_eigenpair(matrix, scratch, leading, work, n, shared);
        for (long long i = threadIdx.x; i < n * n; i += THREADS)
            matrix[i] -= largest * leading[i / n] * leading[i % n];
        __syncthreads();
        if (trace(matrix, n, shared) > 1e-15 * size)  // below, the rest is the rounding of this subtraction
            next = leading_eigenpair(matrix, scratch, second, work, n, shared);
    }
    if (threadIdx.x == 0) {
        squares[blockIdx.x * 2] = largest;
        squares[blockIdx.x * 2 + 1] = next > 0 ? next : 0;
    }
}

// One block an image: maps (N, Z) and values (N, 2). projections (N, Z) is scratch.
extern "C" __global__ void project(const REAL *tensor, const double *means, const double *energies,
                                   const double *vectors, const double *squares, double *projections, REAL *maps,
                                   REAL *values, long long n_channels, long long n_cells, double tolerance,
                                   double sign_band)
{
    __shared__ double shared[THREADS];
    __shared__ double largest, sign;
    const long long image = blockIdx.x;
    const int me = threadIdx.x;
    const double *vector = vectors + image * 3 * (n_cells <= n_channels ? n_cells : n_channels);
    tensor += image * n_channels * n_cells;
    means += image * n_channels;
    projections += image * n_cells;
    maps += image * n_cells;

    double sum = 0;
    for (long long k = me; k < n_channels; k += THREADS)
        sum += energies[image * n_channels + k];
    const double energy = block_sum(sum, shared);
    const double first = sqrt(squares[image * 2]), second = sqrt(squares[image * 2 + 1]);
    const bool finite = energy - energy == 0;
    if (!finite || first <= tolerance * sqrt(energy)) {  // the same for the whole block
        const double everywhere = finite ? 0 : energy - energy;  // inf - inf and NaN - NaN are NaN
        for (long long z = me; z < n_cells; z += THREADS)
            maps[z] = everywhere;
        if (me < 2)
            values[image * 2 + me] = everywhere;
        return;
    }

    double size = 0;
    for (long long z = me; z < n_cells; z += THREADS) {
        double total = 0;
        if (n_cells <= n_channels)
            total = first * vector[z];
        else
            for (long long k = 0; k < n_channels; ++k)
                total += (tensor[k * n_cells + z] - means[k]) * vector[k];
        projections[z] = total;
        size = fmax(size, fabs(total));
    }
    shared[me] = size;
    __syncthreads();
    if (me == 0) {
        largest = 0;
        for (int i = 0; i < THREADS; ++i)
            largest = fmax(largest, shared[i]);
        long long z = 0;
        while (fabs(projections[z]) < sign_band * largest)
            ++z;
        sign = projections[z] < 0 ? -1 : 1;
        values[image * 2] = first;
        values[image * 2 + 1] = second;
    }
    __syncthreads();
    for (long long z = me; z < n_cells; z += THREADS)
        maps[z] = sign * projections[z];
}
