// Ranks of pixels and of squares of pixels; the sort between order_keys and scatter_ranks is CuPy's.
//
// order_keys: keys[i] = -maps[i] where descending is 1, else maps[i]; -0 becomes 0.
// scatter_ranks: ranks[row, order[row, i]] = i, n_pixels a row.
// patch_sums: sums[row, q, p] = the sum of maps[row] over a square, in double: down each column, then over the columns.
// spread_ranks: ranks[row, y, x] = the smallest of squares[row, q, p] over the squares that hold the pixel.
//
// maps and ranks (B, height, width), sums and squares (B, rows, columns); C-contiguous. Square (q, p) begins at
// (q * patch, p * patch) and reaches patch + overlap pixels down and right, or to the edge. A thread owns one value.

#ifndef REAL
#define REAL float
#endif

extern "C" __global__ void order_keys(const REAL *maps, REAL *keys, long long n_values, long long descending)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me < n_values)
        keys[me] = maps[me] == 0 ? 0 : descending ? -maps[me] : maps[me];
}

extern "C" __global__ void scatter_ranks(const long long *order, int *ranks, long long n_values, long long n_pixels)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me < n_values)
        ranks[me - me % n_pixels + order[me]] = (int)(me % n_pixels);
}

extern "C" __global__ void patch_sums(const REAL *maps, double *sums, long long n_values, long long height,
                                      long long width, long long rows, long long columns, long long patch,
                                      long long overlap)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me >= n_values)
        return;
    const long long left = me % columns * patch, top = me / columns % rows * patch;
    const long long right = left + patch + overlap, bottom = top + patch + overlap;
    const REAL *map = maps + me / (columns * rows) * height * width;
    double total = 0;
    for (long long x = left; x < right && x < width; ++x) {
        double column = map[top * width + x];
        for (long long y = top + 1; y < bottom && y < height; ++y)
            column += map[y * width + x];
        total = x == left ? column : total + column;
    }
    sums[me] = total;
}

extern "C" __global__ void spread_ranks(const int *squares, int *ranks, long long n_values, long long height,
                                        long long width, long long rows, long long columns, long long patch,
                                        long long overlap)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me >= n_values)
        return;
    const long long x = me % width, y = me / width % height;
    const int *row = squares + me / (width * height) * rows * columns;
    int first = row[y / patch * columns + x / patch];
    for (long long q = y / patch; q >= 0 && y < (q + 1) * patch + overlap; --q)
        for (long long p = x / patch; p >= 0 && x < (p + 1) * patch + overlap; --p) {
            const int rank = row[q * columns + p];
            first = rank < first ? rank : first;
        }
    ranks[me] = first;
}
