// Causal attention over rotated queries and keys on a CPU, forth and back.
//
// A thread takes a head of keys of one sequence with all heads of queries that share it, and copies
// their rows, turned, so that they lie side by side. It goes through the queries in pieces: the scores
// of a piece with all keys fit into the processor's cache, so that the softmax is the textbook's, row
// by row, and a product is made only with keys that a query of its block may look at, which is half of
// them where a whole sequence is read. The way back makes the scores anew, and of the way there it
// keeps each row's largest score and one over its sum alone.

#include <vector>

#include "vectors.h"

constexpr int64_t QUERIES = 32;     // in a piece
constexpr int ROWS = SUMS / BLOCK;  // of a product

// Where tensors are; `attention_cpu.py` fills it.
template <class Real> struct Attention {
    int64_t threads, batch, time, seen, heads, key_heads, dim, context;
    const Real *q, *k, *v;      // (batch, time, heads, dim), twice (batch, seen, key_heads, dim)
    const Real *cos, *sin;      // (seen, dim), `sin` of the second half
    Real *y, *largest, *share;  // (batch, time, heads, dim), twice (batch, heads, time)
    // For the way back.
    const Real *d_y;
    Real *d_q, *d_k, *d_v;

    // Of query i: its position, and the first key that it may look at. The last is its own.
    int64_t position(int64_t i) const { return seen - time + i; }
    int64_t first(int64_t i) const {
        const int64_t begin = position(i) + 1 - context;
        return begin > 0 ? begin : 0;
    }
};

// Numbers that begin where a vector may, zeros at first.
template <class Real> struct Numbers {
    struct alignas(BYTES) Line {
        Real values[LANES<Real>];
    };
    std::vector<Line> lines;
    explicit Numbers(int64_t size) : lines(size / LANES<Real>) {}
    operator Real *() { return lines.data()->values; }
};

// What a thread works with.
template <class Real> struct Head {
    static constexpr int L = LANES<Real>, WIDE = BLOCK * L;
    const Attention<Real> &a;
    const int64_t P = vectors<Real>(a.dim) * L;          // dimensions, filled up to whole vectors
    const int64_t S = (a.seen + WIDE - 1) / WIDE * WIDE;  // keys, to whole blocks
    // From a row of scores to the next: no power of two, whose rows would crowd in the cache.
    const int64_t across = S + L;
    const Real scale = 1 / __builtin_sqrt(Real(a.dim));
    Numbers<Real> q{QUERIES * P}, k{S * P}, v{S * P}, packed_k{S * P}, scores{QUERIES * across};
    int64_t b = 0, group = 0;  // sequence and head of keys

    // Where a head's row begins; the next is `heads` times `dim` further.
    int64_t row(int64_t at, int64_t rows, int64_t head, int64_t heads) const {
        return ((b * rows + at) * heads + head) * a.dim;
    }
    int64_t query(int64_t i, int64_t head) const { return row(i, a.time, head, a.heads); }
    int64_t key(int64_t i) const { return row(i, a.seen, group, a.key_heads); }

    // Turn dimension i and dimension i + dim / 2 by the angle of a position.
    void turn(
        const Real *__restrict x, Real *__restrict y, int64_t position, Real factor, bool back
    ) const {
        const int64_t half = a.dim / 2;
        const Real *cosines = a.cos + position * a.dim, *sines = a.sin + position * a.dim + half;
        const Real turned = back ? -factor : factor;
        for (int64_t i = 0; i < half; i++) {
            const Real cos = factor * cosines[i], sin = turned * sines[i];
            const Real one = x[i], other = x[half + i];
            y[i] = one * cos - other * sin;
            y[half + i] = other * cos + one * sin;
        }
    }

    void take_keys(int64_t thing) {
        b = thing / a.key_heads;
        group = thing % a.key_heads;
        for (int64_t i = 0; i < a.seen; i++) {
            turn(a.k + key(i), k + i * P, i, 1, false);
            __builtin_memcpy(v + i * P, a.v + key(i), a.dim * sizeof(Real));
        }
        pack<Real>(packed_k, a.dim, S, [&](int64_t d, int64_t i) { return k[i * P + d]; });
    }

    void take_queries(int64_t i, int64_t end, int64_t head) {
        for (int64_t row = i; row < end; row++)
            turn(a.q + query(row, head), q + (row - i) * P, a.position(row), scale, false);
    }

    // The products of a piece of queries, or what goes with them, with all keys or values that any
    // of its queries looks at.
    void multiply_keys(
        Real *to, const Real *rows, const Real *packed, int64_t i, int64_t end
    ) const {
        for (int64_t at = a.first(i) / WIDE * WIDE; at <= a.position(end - 1); at += WIDE) {
            in_blocks<ROWS>(i, end, [&](int64_t begin, auto count) {
                constexpr int R = decltype(count)::value;
                if (a.position(begin + R - 1) < at || a.first(begin) >= at + WIDE) return;
                Real *place = to + (begin - i) * across + at;
                multiply<Real, R, BLOCK>(
                    rows + (begin - i) * P, P, 1, 0, packed + at * a.dim, WIDE, 0, a.dim, 1,
                    [&](int, int) { return Vector<Real>{}; },
                    [&](int r, int v, Vector<Real> sum) {
                        store<Real>(place + r * across + v * L, sum);
                    }
                );
            });
        }
    }

    // For each row of a piece the sum of keys or values by their scores: `take(row, at, sum)`.
    template <class Take>
    void add_keys(
        const Real *by, const Real *keys, int64_t i, int64_t end, const Take &take
    ) const {
        in_blocks<ROWS>(i, end, [&](int64_t begin, auto count) {
            constexpr int R = decltype(count)::value;
            const int64_t first = a.first(begin), n = a.position(begin + R - 1) + 1 - first;
            for (int64_t at = 0; at < P; at += WIDE)
                with_count<BLOCK>((P - at) / L < BLOCK ? (P - at) / L : BLOCK, [&](auto width) {
                    multiply<Real, R, decltype(width)::value>(
                        by + (begin - i) * across + first, across, 1, 0, keys + first * P + at, P,
                        0, n, 1, [&](int, int) { return Vector<Real>{}; },
                        [&](int r, int v, Vector<Real> sum) { take(begin + r, at + v * L, sum); }
                    );
                });
        });
    }

    // To each key the sum of a piece's queries, or what goes with them, by their scores.
    void add_queries(Real *to, const Real *by, const Real *rows, int64_t i, int64_t end) const {
        in_blocks<ROWS>(a.first(i), a.position(end - 1) + 1, [&](int64_t key, auto count) {
            constexpr int R = decltype(count)::value;
            const int64_t own = key - a.position(0), stop = own + R - 1 + a.context;
            const int64_t begin = own > i ? own : i, n = (stop < end ? stop : end) - begin;
            for (int64_t at = 0; at < P; at += WIDE)
                with_count<BLOCK>((P - at) / L < BLOCK ? (P - at) / L : BLOCK, [&](auto width) {
                    Real *place = to + key * P + at;
                    multiply<Real, R, decltype(width)::value>(
                        by + (begin - i) * across + key, 1, across, 0, rows + (begin - i) * P + at,
                        P, 0, n, 1,
                        [&](int r, int v) { return load<Real>(place + r * P + v * L); },
                        [&](int r, int v, Vector<Real> sum) {
                            store<Real>(place + r * P + v * L, sum);
                        }
                    );
                });
        });
    }

    // Go through the scores of query i with keys from `begin` to before `end`, a vector at a time:
    // `work(at, seen)`, where `seen` tells which of these keys it may look at.
    template <class Work>
    void through_keys(int64_t i, int64_t begin, int64_t end, const Work &work) const {
        typedef typename Format<Real>::Bits Bits;
        typedef decltype(Bits{}[0] + 0) Bit;
        Bits lane;
        for (int j = 0; j < L; j++) lane[j] = j;
        const int64_t first = a.first(i), last = a.position(i);
        for (int64_t at = begin; at < end; at += L)
            work(at, (lane >= Bit(first - at)) & (lane <= Bit(last - at)));
    }

    void forward_piece(int64_t i, int64_t end, int64_t head) {
        take_queries(i, end, head);
        multiply_keys(scores, q, packed_k, i, end);
        const int64_t begin = a.first(i) / L * L, stop = a.position(end - 1) + 1;
        const int64_t kept = (b * a.heads + head) * a.time;
        for (int64_t row = i; row < end; row++) {
            Real *own = scores + (row - i) * across;
            Vector<Real> most = Vector<Real>{} - __builtin_inf(), sum = {};
            through_keys(row, begin, stop, [&](int64_t at, auto seen) {
                const Vector<Real> score = load<Real>(own + at);
                most = (seen & (score > most)) ? score : most;
            });
            Real largest = most[0];
            for (int j = 1; j < L; j++) largest = most[j] > largest ? most[j] : largest;
            through_keys(row, begin, stop, [&](int64_t at, auto seen) {
                const Vector<Real> power = exponential<Real>(load<Real>(own + at) - largest, 0);
                const Vector<Real> found = seen ? power : Vector<Real>{};
                sum += found;
                store<Real>(own + at, found);
            });
            a.largest[kept + row] = largest;
            a.share[kept + row] = 1 / total<Real>(sum);
        }
        add_keys(scores, v, i, end, [&](int64_t row, int64_t at, Vector<Real> sum) {
            const Real share = a.share[kept + row];
            store_part<Real>(a.y + query(row, head) + at, sum * share, a.dim - at);
        });
    }

    void forward(int64_t thing) {
        take_keys(thing);
        each_piece([&](int64_t i, int64_t end, int64_t head) { forward_piece(i, end, head); });
    }

    // All pieces of queries of the heads that share this one of keys.
    template <class Work> void each_piece(const Work &work) const {
        const int64_t shared_by = a.heads / a.key_heads;
        for (int64_t head = group * shared_by; head < (group + 1) * shared_by; head++)
            for (int64_t i = 0; i < a.time; i += QUERIES)
                work(i, i + QUERIES < a.time ? i + QUERIES : a.time, head);
    }
};

// What it needs besides on the way back.
template <class Real> struct HeadBack : Head<Real> {
    using Head<Real>::a, Head<Real>::P, Head<Real>::S, Head<Real>::L, Head<Real>::across;
    using Head<Real>::scores, Head<Real>::q, Head<Real>::k, Head<Real>::v;
    Numbers<Real> d_y{QUERIES * P}, d_q{QUERIES * P}, d_k{S * P}, d_v{S * P}, packed_v{S * P};
    Numbers<Real> d_scores{QUERIES * across};

    void backward_piece(int64_t i, int64_t end, int64_t head) {
        this->take_queries(i, end, head);
        for (int64_t row = i; row < end; row++) {
            const Real *from = a.d_y + this->query(row, head);
            __builtin_memcpy(d_y + (row - i) * P, from, a.dim * sizeof(Real));
        }
        this->multiply_keys(scores, q, this->packed_k, i, end);
        this->multiply_keys(d_scores, d_y, packed_v, i, end);
        const int64_t begin = a.first(i) / L * L, stop = a.position(end - 1) + 1;
        const int64_t kept = (this->b * a.heads + head) * a.time;
        for (int64_t row = i; row < end; row++) {
            Real *own = scores + (row - i) * across, *d_own = d_scores + (row - i) * across;
            const Real largest = a.largest[kept + row], share = a.share[kept + row];
            Vector<Real> sum = {};
            this->through_keys(row, begin, stop, [&](int64_t at, auto seen) {
                const Vector<Real> score = load<Real>(own + at);
                const Vector<Real> power = exponential<Real>(score - largest, 0) * share;
                const Vector<Real> found = seen ? power : Vector<Real>{};
                store<Real>(own + at, found);
                sum += seen ? found * load<Real>(d_own + at) : found;
            });
            const Real mean = total<Real>(sum);
            this->through_keys(row, begin, stop, [&](int64_t at, auto seen) {
                const Vector<Real> d = load<Real>(own + at) * (load<Real>(d_own + at) - mean);
                store<Real>(d_own + at, seen ? d : Vector<Real>{});
            });
        }
        this->add_keys(d_scores, k, i, end, [&](int64_t row, int64_t at, Vector<Real> sum) {
            store<Real>(d_q + (row - i) * P + at, sum);
        });
        for (int64_t row = i; row < end; row++) {
            Real *to = a.d_q + this->query(row, head);
            this->turn(d_q + (row - i) * P, to, a.position(row), this->scale, true);
        }
        this->add_queries(d_v, scores, d_y, i, end);
        this->add_queries(d_k, d_scores, q, i, end);
    }

    void backward(int64_t thing) {
        this->take_keys(thing);
        pack<Real>(packed_v, a.dim, S, [&](int64_t d, int64_t i) { return v[i * P + d]; });
        __builtin_memset(d_k, 0, S * P * sizeof(Real));
        __builtin_memset(d_v, 0, S * P * sizeof(Real));
        this->each_piece([&](int64_t i, int64_t end, int64_t head) {
            backward_piece(i, end, head);
        });
        for (int64_t i = 0; i < a.seen; i++) {
            this->turn(d_k + i * P, a.d_k + this->key(i), i, 1, true);
            __builtin_memcpy(a.d_v + this->key(i), d_v + i * P, a.dim * sizeof(Real));
        }
    }
};

template <class Real> static void forward(const Attention<Real> &a) {
    share(a.threads, a.batch * a.key_heads, [&](int64_t begin, int64_t end) {
        Head<Real> head{a};
        for (int64_t i = begin; i < end; i++) head.forward(i);
    });
}

template <class Real> static void backward(const Attention<Real> &a) {
    share(a.threads, a.batch * a.key_heads, [&](int64_t begin, int64_t end) {
        HeadBack<Real> head{{a}};
        for (int64_t i = begin; i < end; i++) head.backward(i);
    });
}

extern "C" {
void forward_float(const Attention<float> *a) { forward(*a); }
void forward_double(const Attention<double> *a) { forward(*a); }
void backward_float(const Attention<float> *a) { backward(*a); }
void backward_double(const Attention<double> *a) { backward(*a); }
int64_t vector_bytes() { return BYTES; }
}
