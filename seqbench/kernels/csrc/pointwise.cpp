// SwiGLU and RMSNorm, forward and backward. Memory traffic is their cost: each reads its inputs once and
// writes its outputs once; a row of RMSNorm stays in cache L1 between the passes over it.

#include "arguments.h"
#include "parallel.h"

// silu(gate) * up, elementwise (Shazeer 2020).
ARGUMENTS(
    Swiglu,
    int64_t threads, size;
    const Real *gate, *up, *d_output;  // (size,), as the following
    Real *output, *d_gate, *d_up;
    void *workspace;
)

// x / sqrt(mean(x^2) + eps) * weight, row by row (Zhang and Sennrich 2019).
ARGUMENTS(
    RmsNorm,
    int64_t threads, rows, width;
    double eps;
    const Real *x, *d_output;  // (rows, width)
    Real *output, *d_x;        // (rows, width)
    Real *inverse_rms;         // (rows,): 1 / sqrt(mean(x^2) + eps), saved for backward
    const Real *weight;        // (width,)
    Real *d_weight;            // (width,)
    void *workspace;
)

// Rows whose gradients of the weight are summed at once. The sums of these pieces are added in order, so
// that any number of threads gives the same bits.
constexpr int64_t PIECE = 64;

// Call `work(i, left)` for the vectors of values from `begin` to before `end`: where one begins, and how
// many values it has. Full vectors have a loop of their own, without branches.
template <class Real, class Work>
INLINE void each_vector(int64_t begin, int64_t end, const Work &work) {
    int64_t i = begin;
    for (; i + LANES<Real> <= end; i += LANES<Real>) work(i, LANES<Real>);
    if (i < end) work(i, end - i);
}

// The same, shared among threads.
template <class Real, class Work>
static void share_vectors(int64_t threads, int64_t size, const Work &work) {
    parallel_for(threads, vectors<Real>(size), [&](int64_t begin, int64_t end) {
        each_vector<Real>(begin * LANES<Real>, min(end * LANES<Real>, size), work);
    });
}

template <class Real, bool BACKWARD> struct SwigluKernel {
    const Swiglu<Real> &a;

    SwigluKernel(const Swiglu<Real> &a, Workspace &) : a(a) {}
    void run() const {
        share_vectors<Real>(a.threads, a.size, [&](int64_t i, int64_t left) {
            const Vector<Real> gate = load_part<Real>(a.gate + i, left), s = sigmoid<Real>(gate);
            const Vector<Real> up = load_part<Real>(a.up + i, left);
            if (!BACKWARD) return store_part<Real>(a.output + i, gate * s * up, left);
            const Vector<Real> d = load_part<Real>(a.d_output + i, left) * s;
            store_part<Real>(a.d_up + i, d * gate, left);
            store_part<Real>(a.d_gate + i, d * up * fma(gate, 1 - s, Vector<Real>{} + 1), left);
        });
    }
};

template <class Real> struct RmsNormForward {
    const RmsNorm<Real> &a;

    RmsNormForward(const RmsNorm<Real> &a, Workspace &) : a(a) {}
    void run() const {
        parallel_for(a.threads, a.rows, [&](int64_t begin, int64_t end) {
            for (int64_t row = begin; row < end; row++) {
                const Real *x = a.x + row * a.width;
                Vector<Real> squares = {};
                each_vector<Real>(0, a.width, [&](int64_t i, int64_t left) {
                    const Vector<Real> value = load_part<Real>(x + i, left);
                    squares = fma(value, value, squares);
                });
                const Real scale = 1 / __builtin_sqrt(horizontal_sum<Real>(squares) / a.width + a.eps);
                a.inverse_rms[row] = scale;
                each_vector<Real>(0, a.width, [&](int64_t i, int64_t left) {
                    const Vector<Real> value = load_part<Real>(x + i, left) * scale;
                    const Vector<Real> weight = load_part<Real>(a.weight + i, left);
                    store_part<Real>(a.output + row * a.width + i, value * weight, left);
                });
            }
        });
    }
};

template <class Real> struct RmsNormBackward {
    const RmsNorm<Real> &a;
    const int64_t pieces = ceil_div(a.rows, PIECE), P = padded<Real>(a.width);
    Real *sums;  // (pieces, P): of the gradients of the weight

    RmsNormBackward(const RmsNorm<Real> &a, Workspace &workspace)
        : a(a), sums(workspace.take<Real>(pieces * P)) {}

    void backward(int64_t row, Real *sums) const {
        const Real *x = a.x + row * a.width, *d_output = a.d_output + row * a.width;
        const Real scale = a.inverse_rms[row];
        Vector<Real> products = {};
        each_vector<Real>(0, a.width, [&](int64_t i, int64_t left) {
            const Vector<Real> value = load_part<Real>(x + i, left);
            const Vector<Real> d = load_part<Real>(d_output + i, left);
            products = fma(value * load_part<Real>(a.weight + i, left), d, products);
            store<Real>(sums + i, fma(value * scale, d, load<Real>(sums + i)));
        });
        // The part of the gradient that lies along x: the norm takes it away.
        const Real along = horizontal_sum<Real>(products) / a.width * scale * scale;
        each_vector<Real>(0, a.width, [&](int64_t i, int64_t left) {
            const Vector<Real> d = load_part<Real>(d_output + i, left);
            const Vector<Real> value = load_part<Real>(x + i, left) * -along;
            const Vector<Real> d_x = fma(d, load_part<Real>(a.weight + i, left), value);
            store_part<Real>(a.d_x + row * a.width + i, d_x * scale, left);
        });
    }

    void run() const {
        parallel_for(a.threads, pieces, [&](int64_t begin, int64_t end) {
            __builtin_memset(sums + begin * P, 0, (end - begin) * P * sizeof(Real));
            for (int64_t row = begin * PIECE; row < min(end * PIECE, a.rows); row++)
                backward(row, sums + row / PIECE * P);
        });
        share_vectors<Real>(a.threads, a.width, [&](int64_t i, int64_t left) {
            Vector<Real> sum = {};
            for (int64_t piece = 0; piece < pieces; piece++) sum += load<Real>(sums + piece * P + i);
            store_part<Real>(a.d_weight + i, sum, left);
        });
    }
};

EXPORT(swiglu_forward, Swiglu<REAL>, SwigluKernel<REAL, false>)
EXPORT(swiglu_backward, Swiglu<REAL>, SwigluKernel<REAL, true>)
EXPORT(rms_norm_forward, RmsNorm<REAL>, RmsNormForward<REAL>)
EXPORT(rms_norm_backward, RmsNorm<REAL>, RmsNormBackward<REAL>)
