"""The CUDA C of the convolutions: three products without the matrices that they are products of (implicit GEMM).

Each is C = A B with one operand gathered from a picture while it is multiplied. A block of 128 threads computes
BM × 128 numbers of C, a thread TM × TN of them in registers; a slice of BK rows of A and B at a time goes through
shared memory.
(The definitions are in ops/convolution.py; pictures are (N, C, H, W) in C order, filters (O, C/g, kh, kw).)

    conv2d             (O × K)(K × pixels of y)       K = C/g·kh·kw
    conv_transpose2d   (C/g × K)(K × pixels of x)     K = O/g·(the taps that meet this phase)
    weight_gradient    (O × pixels of y)(pixels × K)  the sum over pixels split among blocks, and added up at the end

The transposed convolution with stride s is s² of stride 1: the pixels of x whose coordinates have the same remainders
modulo s (a phase) meet the same taps, so that no inserted zero is multiplied.

The same for the GEMM by cuBLAS: im2col writes the windows as a matrix for each picture, (C/g·kh·kw, Ho·Wo), and col2im
sums them back, every pixel of x collecting its own windows, in a fixed order.
"""

_TEMPLATES = r"""
struct Conv { int N, C, H, W, O, kh, kw, oh, ow, sh, sw, ph, pw, dh, dw, groups; };

#define THREADS 128
#define BN 128
#define BK 8

// The TM×TN numbers of a thread: += A-slice · B-slice. Columns of a thread are BN/TN apart, so that neighbouring
// threads read and write neighbouring numbers.
template <int BM, int TM, int TN>
__device__ __forceinline__ void multiply(T (&sum)[TM][TN], const T (*A)[BM], const T (*B)[BN], int row, int column) {
#pragma unroll
    for (int k = 0; k < BK; k++) {
        T a[TM], b[TN];
#pragma unroll
        for (int i = 0; i < TM; i++) a[i] = A[k][row * TM + i];
#pragma unroll
        for (int j = 0; j < TN; j++) b[j] = B[k][column + j * (BN / TN)];
#pragma unroll
        for (int i = 0; i < TM; i++)
#pragma unroll
            for (int j = 0; j < TN; j++) sum[i][j] += a[i] * b[j];
    }
}

template <int BM, int TM, int TN>
__device__ void block_conv2d(T* y, const T* x, const T* w, const T* bias, const Conv& q) {
    __shared__ T A[BK][BM];
    __shared__ T B[BK][BN];
    const int t = threadIdx.x, columns = BN / TN, row = t / columns, column = t % columns;
    const int c = q.C / q.groups, o = q.O / q.groups, taps = q.kh * q.kw, K = c * taps, P = q.oh * q.ow;
    const int group = blockIdx.z, o0 = blockIdx.y * BM;
    const int pixels = q.N * P;
    const long long p0 = (long long)blockIdx.x * BN;

    // The output pixel whose windows this thread gathers.
    const long long pixel = p0 + t;
    const bool inside = pixel < pixels;
    const int n = inside ? (int)pixel / P : 0, at = inside ? (int)pixel % P : 0;
    const int top = at / q.ow * q.sh - q.ph, left = at % q.ow * q.sw - q.pw;
    const T* picture = x + ((long long)n * q.C + (long long)group * c) * q.H * q.W;

    T sum[TM][TN];
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] = 0;

    int ci = 0, u = 0, v = 0;  // of the next row k of B
    for (int k0 = 0; k0 < K; k0 += BK) {
        for (int e = t; e < BK * BM; e += THREADS) {
            int k = e % BK, m = e / BK;
            bool real = k0 + k < K && o0 + m < o;
            A[k][m] = real ? w[((long long)group * o + o0 + m) * K + k0 + k] : (T)0;
        }
#pragma unroll
        for (int k = 0; k < BK; k++) {
            int i = top + u * q.dh, j = left + v * q.dw;
            bool real = inside && ci < c && i >= 0 && i < q.H && j >= 0 && j < q.W;
            B[k][t] = real ? picture[((long long)ci * q.H + i) * q.W + j] : (T)0;
            if (++v == q.kw) { v = 0; if (++u == q.kh) { u = 0; ci++; } }
        }
        __syncthreads();
        multiply<BM, TM, TN>(sum, A, B, row, column);
        __syncthreads();
    }

#pragma unroll
    for (int j = 0; j < TN; j++) {
        long long p = p0 + column + j * columns;
        if (p >= pixels) continue;
        T* to = y + (p / P * q.O + (long long)group * o) * P + p % P;
#pragma unroll
        for (int i = 0; i < TM; i++) {
            int m = o0 + row * TM + i;
            if (m < o) to[(long long)m * P] = bias ? sum[i][j] + bias[group * o + m] : sum[i][j];
        }
    }
}

// The taps u = first + number·every < size that meet remainder r: r + p − d·u divisible by s.
__device__ __forceinline__ void taps_of(int r, int p, int d, int s, int size, int& first, int& every, int& number) {
    first = 0, every = 1, number = 0;
    for (int u = 0; u < size; u++)
        if ((r + p - d * u) % s == 0) {
            if (number == 0) first = u;
            if (number == 1) every = u - first;
            number++;
        }
}

template <int BM, int TM, int TN>
__device__ void block_conv_transpose2d(T* x, const T* y, const T* w, const T* bias, const Conv& q) {
    __shared__ T A[BK][BM];
    __shared__ T B[BK][BN];
    const int t = threadIdx.x, columns = BN / TN, row = t / columns, column = t % columns;
    const int c = q.C / q.groups, o = q.O / q.groups;
    const int phase = blockIdx.z % (q.sh * q.sw), group = blockIdx.z / (q.sh * q.sw), c0 = blockIdx.y * BM;
    const int rh = phase / q.sw, rw = phase % q.sw;
    const int hs = (q.H - rh + q.sh - 1) / q.sh, ws = (q.W - rw + q.sw - 1) / q.sw, P = hs * ws;
    const long long pixels = (long long)q.N * P, p0 = (long long)blockIdx.x * BN;
    if (p0 >= pixels) return;  // all threads of the block alike

    int u0, us, un, v0, vs, vn;
    taps_of(rh, q.ph, q.dh, q.sh, q.kh, u0, us, un);
    taps_of(rw, q.pw, q.dw, q.sw, q.kw, v0, vs, vn);
    const int taps = un * vn, K = o * taps;

    const long long pixel = p0 + t;
    const bool inside = pixel < pixels;
    const int n = inside ? (int)pixel / P : 0, at = inside ? (int)pixel % P : 0;
    const int h = rh + at / ws * q.sh, l = rw + at % ws * q.sw;
    const T* picture = y + ((long long)n * q.O + (long long)group * o) * q.oh * q.ow;

    T sum[TM][TN];
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] = 0;

    int oi = 0, a = 0, b = 0;  // of the next row k: filter, tap u0 + a·us, tap v0 + b·vs
    for (int k0 = 0; k0 < K; k0 += BK) {
        for (int e = t; e < BK * BM; e += THREADS) {
            int k = e % BK, m = e / BK, kk = k0 + k, f = kk / taps, tap = kk % taps;
            bool real = kk < K && c0 + m < c;
            int u = u0 + tap / vn * us, v = v0 + tap % vn * vs;
            A[k][m] = real ? w[((((long long)group * o + f) * c + c0 + m) * q.kh + u) * q.kw + v] : (T)0;
        }
#pragma unroll
        for (int k = 0; k < BK; k++) {
            int i = h + q.ph - q.dh * (u0 + a * us), j = l + q.pw - q.dw * (v0 + b * vs);
            bool real = inside && oi < o && i >= 0 && j >= 0;
            i /= q.sh;
            j /= q.sw;
            real = real && i < q.oh && j < q.ow;
            B[k][t] = real ? picture[((long long)oi * q.oh + i) * q.ow + j] : (T)0;
            if (++b == vn) { b = 0; if (++a == un) { a = 0; oi++; } }
        }
        __syncthreads();
        multiply<BM, TM, TN>(sum, A, B, row, column);
        __syncthreads();
    }

#pragma unroll
    for (int j = 0; j < TN; j++) {
        long long p = p0 + column + j * columns;
        if (p >= pixels) continue;
        int where = (int)(p % P);
        int hh = rh + where / ws * q.sh, ll = rw + where % ws * q.sw;
        T* to = x + ((p / P * q.C + (long long)group * c) * q.H + hh) * q.W + ll;
#pragma unroll
        for (int i = 0; i < TM; i++) {
            int m = c0 + row * TM + i;
            if (m < c) to[(long long)m * q.H * q.W] = bias ? sum[i][j] + bias[group * c + m] : sum[i][j];
        }
    }
}

// Pixels of a slice: enough that a warp reads neighbouring ones; in double precision fewer, for shared memory's sake.
#define BP (sizeof(T) == 4 ? 32 : 16)

template <int BM, int TM, int TN>
__device__ void block_weight_gradient(T* partial, const T* x, const T* y, const Conv& q, long long each) {
    __shared__ T A[BP][BM + 1];
    __shared__ T B[BP][BN + 1];
    __shared__ int start[BN], down[BN], right[BN];  // where a column (c, u, v) reads
    const int t = threadIdx.x, columns = BN / TN, row = t / columns, column = t % columns;
    const int c = q.C / q.groups, o = q.O / q.groups, taps = q.kh * q.kw, K = c * taps, P = q.oh * q.ow;
    const int tiles = (K + BN - 1) / BN;
    const int group = blockIdx.z, o0 = blockIdx.y * BM, k0 = (int)(blockIdx.x % tiles) * BN;
    const long long split = blockIdx.x / tiles, pixels = (long long)q.N * P;
    const long long begin = split * each, end = begin + each < pixels ? begin + each : pixels;

    {
        int k = k0 + t, ci = k / taps, tap = k % taps;
        start[t] = k < K ? (group * c + ci) * q.H * q.W : -1;
        down[t] = tap / q.kw * q.dh - q.ph;
        right[t] = tap % q.kw * q.dw - q.pw;
    }
    __syncthreads();

    T sum[TM][TN];
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) sum[i][j] = 0;

    const int lane = t % BP;  // the pixel of the slice that this thread reads
    for (long long p0 = begin; p0 < end; p0 += BP) {
        long long pixel = p0 + lane;
        bool inside = pixel < end;
        long long n = inside ? (int)pixel / P : 0;
        int at = inside ? (int)pixel % P : 0;
        int top = at / q.ow * q.sh, left = at % q.ow * q.sw;
        const T* from = y + (n * q.O + (long long)group * o) * P + at;
        const T* picture = x + n * q.C * q.H * q.W;
        for (int m = t / BP; m < BM; m += THREADS / BP)
            A[lane][m] = inside && o0 + m < o ? from[(long long)(o0 + m) * P] : (T)0;
        for (int k = t / BP; k < BN; k += THREADS / BP) {
            int i = top + down[k], j = left + right[k];
            bool real = inside && start[k] >= 0 && i >= 0 && i < q.H && j >= 0 && j < q.W;
            B[lane][k] = real ? picture[(long long)start[k] + i * q.W + j] : (T)0;
        }
        __syncthreads();
#pragma unroll 4
        for (int k = 0; k < BP; k++) {
            T a[TM], b[TN];
#pragma unroll
            for (int i = 0; i < TM; i++) a[i] = A[k][row * TM + i];
#pragma unroll
            for (int j = 0; j < TN; j++) b[j] = B[k][column + j * columns];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sum[i][j] += a[i] * b[j];
        }
        __syncthreads();
    }

#pragma unroll
    for (int i = 0; i < TM; i++) {
        int m = o0 + row * TM + i;
        if (m >= o) continue;
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int k = k0 + column + j * columns;
            if (k < K) partial[(split * q.O + group * o + m) * K + k] = sum[i][j];
        }
    }
}

// w = Σ partial over splits, always in the same order.
extern "C" __global__ void sum_splits(T* w, const T* partial, long long splits, long long n) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= n) return;
    T s = 0;
    for (long long k = 0; k < splits; k++) s += partial[k * n + i];
    w[i] = s;
}

// The windows of the pictures from..: columns (pictures, groups, K, P).
extern "C" __global__ void im2col(T* columns, const T* x, const Conv q, long long n) {
    const unsigned taps = q.kh * q.kw, P = q.oh * q.ow;
    for (unsigned e = blockIdx.x * blockDim.x + threadIdx.x; e < n; e += gridDim.x * blockDim.x) {
        int p = e % P;
        unsigned k = e / P;
        int tap = k % taps;
        long long channel = k / taps;  // of the pictures one after another
        int i = p / q.ow * q.sh + tap / q.kw * q.dh - q.ph, j = p % q.ow * q.sw + tap % q.kw * q.dw - q.pw;
        bool real = i >= 0 && i < q.H && j >= 0 && j < q.W;
        columns[e] = real ? x[(channel * q.H + i) * q.W + j] : (T)0;
    }
}

// The adjoint: every pixel of x sums what its windows say about it, in the order of the taps. bias may be null.
extern "C" __global__ void col2im(T* x, const T* columns, const T* bias, const Conv q, long long n) {
    const int taps = q.kh * q.kw, P = q.oh * q.ow;
    for (unsigned e = blockIdx.x * blockDim.x + threadIdx.x; e < n; e += gridDim.x * blockDim.x) {
        int j = e % (unsigned)q.W, i = e / (unsigned)q.W % (unsigned)q.H;
        long long channel = e / (unsigned)q.W / (unsigned)q.H;
        const T* from = columns + channel * taps * P;
        T s = bias ? bias[channel % q.C] : (T)0;
        for (int u = 0; u < q.kh; u++) {
            int a = i + q.ph - u * q.dh;
            if (a < 0 || a % q.sh || a / q.sh >= q.oh) continue;
            for (int v = 0; v < q.kw; v++) {
                int b = j + q.pw - v * q.dw;
                if (b < 0 || b % q.sw || b / q.sw >= q.ow) continue;
                s += from[(u * q.kw + v) * P + a / q.sh * q.ow + b / q.sw];
            }
        }
        x[e] = s;
    }
}
"""

# The heights of a block's part of the result, with the numbers that a thread has: 64 and more rows, few, very few.
TILES = {64: (8, 8), 32: (8, 4), 8: (8, 1)}


def _variant(BM: int, TM: int, TN: int) -> str:
    return f"""
extern "C" __global__ void __launch_bounds__(128) conv2d_{BM}(
    T* y, const T* x, const T* w, const T* bias, const Conv q) {{
    block_conv2d<{BM}, {TM}, {TN}>(y, x, w, bias, q);
}}
extern "C" __global__ void __launch_bounds__(128) conv_transpose2d_{BM}(
    T* x, const T* y, const T* w, const T* bias, const Conv q) {{
    block_conv_transpose2d<{BM}, {TM}, {TN}>(x, y, w, bias, q);
}}
extern "C" __global__ void __launch_bounds__(128) weight_gradient_{BM}(
    T* partial, const T* x, const T* y, const Conv q, long long each) {{
    block_weight_gradient<{BM}, {TM}, {TN}>(partial, x, y, q, each);
}}
"""


SOURCE = _TEMPLATES + "".join(_variant(BM, TM, TN) for BM, (TM, TN) in TILES.items())
