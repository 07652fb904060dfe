// class_scores: scores[row] = logits[row, classes[row]], or its softmax over the row where probability is 1.
//
// logits (M, C), classes and scores (M,); C-contiguous. A block of THREADS threads owns one row: a tree joins the
// threads' largest logits, then their sums of powers, always in the same order.
//
// log_scores: log_p[row] = log of that softmax and log_rest[row] = log of what it leaves of 1, both in double from the
// log-odds of the class against the other logits; hit[row] tells whether the class is the row's first largest.
//
// One logit alone has a second class beside it, whose logit is 0. A class that does not exist scores NaN.

#ifndef REAL
#define REAL float
#endif

#define THREADS 128

__device__ REAL larger(REAL a, REAL b)
{
    return a != a || a > b ? a : b;  // a NaN wins
}

extern "C" __global__ void class_scores(const REAL *logits, const long long *classes, REAL *scores,
                                        long long n_classes, long long probability)
{
    __shared__ REAL shared[THREADS];
    const REAL *row = logits + blockIdx.x * n_classes;
    const long long chosen = classes[blockIdx.x];
    const bool exists = chosen >= 0 && chosen < n_classes;
    const int me = threadIdx.x;

    REAL high = n_classes == 1 ? larger(row[0], 0) : row[0];
    for (long long c = me; c < n_classes; c += THREADS)
        high = larger(high, row[c]);
    shared[me] = high;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half)
            shared[me] = larger(shared[me], shared[me + half]);
        __syncthreads();
    }
    high = shared[0];
    __syncthreads();

    REAL total = n_classes == 1 && me == 0 ? exp(-high) : 0;
    for (long long c = me; c < n_classes; c += THREADS)
        total += exp(row[c] - high);
    shared[me] = total;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half)
            shared[me] += shared[me + half];
        __syncthreads();
    }
    if (me == 0) {
        const REAL infinity = ldexp((REAL)1, 2000);
        const REAL logit = exists ? row[chosen] : infinity - infinity;
        scores[blockIdx.x] = probability ? exp(logit - high) / shared[0] : logit;
    }
}

__device__ double larger_of(double a, double b)
{
    return a != a || a > b ? a : b;
}

extern "C" __global__ void log_scores(const REAL *logits, const long long *classes, double *log_p, double *log_rest,
                                      bool *hit, long long n_classes)
{
    __shared__ double shared[THREADS];
    __shared__ bool beaten[THREADS];
    const REAL *row = logits + blockIdx.x * n_classes;
    const long long chosen = classes[blockIdx.x];
    const double infinity = ldexp(1.0, 2000);
    const bool exists = chosen >= 0 && chosen < n_classes;
    const double logit = exists ? (double)row[chosen] : infinity;
    const int me = threadIdx.x;

    double high = n_classes == 1 ? 0 : -infinity;
    bool lost = n_classes == 1 && !(logit > 0);
    for (long long c = me; c < n_classes; c += THREADS)
        if (c != chosen) {
            high = larger_of(high, (double)row[c]);
            lost = lost || (c < chosen ? row[c] >= logit : row[c] > logit);
        }
    shared[me] = high;
    beaten[me] = lost;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half) {
            shared[me] = larger_of(shared[me], shared[me + half]);
            beaten[me] = beaten[me] || beaten[me + half];
        }
        __syncthreads();
    }
    high = shared[0] == -infinity ? 0 : shared[0];
    __syncthreads();

    double total = n_classes == 1 && me == 0 ? exp(-high) : 0;
    for (long long c = me; c < n_classes; c += THREADS)
        if (c != chosen)
            total += exp((double)row[c] - high);
    shared[me] = total;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if (me < half)
            shared[me] += shared[me + half];
        __syncthreads();
    }
    if (me == 0) {
        const double rest = high + log(shared[0]);
        const double odds = logit == infinity ? infinity - infinity : logit - rest;
        const double both = log1p(exp(-fabs(odds)));
        log_p[blockIdx.x] = (odds < 0 || odds != odds ? odds : 0) - both;
        log_rest[blockIdx.x] = (odds > 0 || odds != odds ? -odds : 0) - both;
        hit[blockIdx.x] = odds == odds && !beaten[0];
    }
}
