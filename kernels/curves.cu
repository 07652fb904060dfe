// areas: total[row] = the trapezoids under curves[row], summed in order and divided by the width.
//
// curves (B, n_points), total (B,); C-contiguous. positions: none and not read where `kind` is 0, then i is the position
// of point i; (n_points) where it is 1; (B, n_points) where it is 2. A thread owns one curve; all is in double.

#ifndef REAL
#define REAL float
#endif

extern "C" __global__ void areas(const REAL *curves, const double *positions, double *total, long long n_curves,
                                 long long n_points, long long kind)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me >= n_curves)
        return;
    const REAL *y = curves + me * n_points;
    const double *x = kind == 2 ? positions + me * n_points : positions;
    double sum = 0;
    for (long long i = 1; i < n_points; ++i) {
        const double width = kind ? x[i] - x[i - 1] : 1;
        sum += width * (((double)y[i - 1] + (double)y[i]) / 2);
    }
    total[me] = sum / (kind ? x[n_points - 1] - x[0] : (double)(n_points - 1));
}
