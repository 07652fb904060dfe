// fill_swapped: out[row] = images[which[row]], or substrates[which[row]] where start[row] <= ranks[of[row]] < stop[row].
//
// images and out (., C, height, width), or (., height, width, C) where channels_last is 1; ranks (., height, width);
// C-contiguous. Pixels are copied as `item` bytes, 1, 2, 4 or 8. `substrates` is walked with a step for each axis,
// which is 0 along an axis that is broadcast. A thread owns one value.

__device__ void copy(unsigned char *out, long long target, const unsigned char *from, long long source, long long item)
{
    if (item == 8)
        ((unsigned long long *)out)[target] = ((const unsigned long long *)from)[source];
    else if (item == 4)
        ((unsigned int *)out)[target] = ((const unsigned int *)from)[source];
    else if (item == 2)
        ((unsigned short *)out)[target] = ((const unsigned short *)from)[source];
    else
        out[target] = from[source];
}

extern "C" __global__ void fill_swapped(unsigned char *out, const unsigned char *images,
                                        const unsigned char *substrates, const int *ranks, const long long *which,
                                        const long long *of, const long long *start, const long long *stop,
                                        long long n_values, long long item, long long channels, long long height,
                                        long long width, long long channels_last, long long image_step,
                                        long long channel_step, long long row_step, long long column_step)
{
    const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (me >= n_values)
        return;
    const long long n_pixels = height * width, per_row = channels * n_pixels, row = me / per_row, place = me % per_row;
    const long long channel = channels_last ? place % channels : place / n_pixels;
    const long long pixel = channels_last ? place / channels : place % n_pixels;
    const int rank = ranks[of[row] * n_pixels + pixel];
    const bool swapped = start[row] <= rank && rank < stop[row];
    const long long substrate = which[row] * image_step + channel * channel_step + pixel / width * row_step +
                                pixel % width * column_step;
    copy(out, me, swapped ? substrates : images, swapped ? substrate : which[row] * per_row + place, item);
}
