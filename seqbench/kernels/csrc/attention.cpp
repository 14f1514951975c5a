// Causal attention with grouped queries and rotary position embeddings, forward and backward.
//
// A thread takes a key head of a sequence, with all query heads that share it, and copies their rows,
// rotated, into its own buffers, (row, P). Queries are taken in pieces of one panel, whose scores lie
// transposed, (key, query): softmax and mask treat a vector of queries at once.
// - The scores of a piece with all keys stay in cache L2: the softmax is the textbook's.
// - Products leave out keys that no query of a tile attends to: half of a causal sequence.
// - Backward computes the scores again. Forward saves two numbers of each query for it.
// - A sum is taken by one thread, in one order: any number of threads gives the same bits.

#include "arguments.h"
#include "gemm.h"
#include "parallel.h"

ARGUMENTS(
    Attention,
    int64_t threads, batch, time, keys, heads, key_heads, head_dim;
    int64_t window;             // keys that a query attends to, at most, its own included
    const Real *q, *d_output;   // (batch, time, heads, head_dim), at the last of the keys' positions
    const Real *k, *v;          // (batch, keys, key_heads, head_dim)
    const Real *cos, *sin;      // (keys, head_dim): two equal halves; of sin, the first is negative
    Real *output, *d_q;         // as q
    Real *row_max, *row_scale;  // (batch, heads, time): largest score, 1 / sum of exp(score - largest)
    Real *d_k, *d_v;            // as k
    void *workspace;
)

// The work of one thread. BACKWARD: with gradients.
template <class Real, bool BACKWARD> struct Head {
    static constexpr int L = LANES<Real>, R = ROWS<PANEL>, QUERIES = PANEL * L;  // of a piece
    typedef Vector<Real> V;
    typedef typename Format<Real>::Bits Bits;

    const Attention<Real> &a;
    const int64_t P = padded<Real>(a.head_dim), window = min(a.window, a.keys);
    const Real scale = 1 / __builtin_sqrt(Real(a.head_dim));
    Real *k, *v, *d_k, *d_v;    // (keys, P); k and d_k are rotated
    Real *q, *d_output, *d_q;   // (QUERIES, P); q and d_q are rotated, q is scaled
    Real *packed_q, *packed_d;  // q and d_output: (head_dim, QUERIES)
    Real *scores, *d_scores;    // (keys, QUERIES)
    int64_t sequence, key_head;
    int64_t head, begin, end, saved;  // of a piece: its head, its queries, where the head's row_max begins

    Head(const Attention<Real> &a, Workspace &workspace) : a(a) {
        const auto take = [&](int64_t count) { return workspace.take<Real>(count); };
        k = take(a.keys * P), v = take(a.keys * P);
        q = take(QUERIES * P), packed_q = take(QUERIES * P), scores = take(a.keys * QUERIES);
        if (!BACKWARD) return;
        d_k = take(a.keys * P), d_v = take(a.keys * P), d_q = take(QUERIES * P);
        d_output = take(QUERIES * P), packed_d = take(QUERIES * P), d_scores = take(a.keys * QUERIES);
    }

    // Of query i: its position, and the first key that it attends to.
    int64_t position(int64_t i) const { return a.keys - a.time + i; }
    int64_t first_key(int64_t i) const { return max(position(i) + 1 - window, 0); }
    // Where its row begins in q, and that of key i in k.
    int64_t query_at(int64_t i) const { return ((sequence * a.time + i) * a.heads + head) * a.head_dim; }
    int64_t key_at(int64_t i) const {
        return ((sequence * a.keys + i) * a.key_heads + key_head) * a.head_dim;
    }

    // Rotate dimensions i and i + head_dim / 2 by the angle of a position, or with direction -1 back.
    void rotate(const Real *from, Real *to, int64_t position, Real factor, Real direction) const {
        const int64_t half = a.head_dim / 2;
        const Real *cosines = a.cos + position * a.head_dim;
        const Real *sines = a.sin + position * a.head_dim + half;
        for (int64_t i = 0; i < half; i += L) {
            const V cos = factor * load_part<Real>(cosines + i, half - i);
            const V sin = factor * direction * load_part<Real>(sines + i, half - i);
            const V x = load_part<Real>(from + i, half - i);
            const V y = load_part<Real>(from + half + i, half - i);
            store_part<Real>(to + i, fma(x, cos, -y * sin), half - i);
            store_part<Real>(to + half + i, fma(y, cos, x * sin), half - i);
        }
    }

    // Load a row into the cache ahead of use: the processor does not foresee rows that lie so far apart.
    void prefetch(const Real *row) const {
        for (int64_t i = 0; i < a.head_dim; i += 64 / sizeof(Real)) __builtin_prefetch(row + i);
    }

    void load_queries() const {
        for (int64_t i = begin; i < end; i++) {
            prefetch(a.q + query_at(i + QUERIES));
            rotate(a.q + query_at(i), q + (i - begin) * P, position(i), scale, 1);
            if (!BACKWARD) continue;
            prefetch(a.d_output + query_at(i + QUERIES));
            const Real *from = a.d_output + query_at(i);
            __builtin_memcpy(d_output + (i - begin) * P, from, a.head_dim * sizeof(Real));
        }
        const auto pack_rows = [&](Real *to, const Real *from) {
            pack<Real>(to, a.head_dim, QUERIES, [=](int64_t d, int64_t i) { return from[i * P + d]; });
        };
        pack_rows(packed_q, q);
        if (BACKWARD) pack_rows(packed_d, d_output);
    }

    // The scores of a piece: keys that a query of it attends to, times all its queries. Backward, also
    // values times gradients of the output.
    void multiply_keys(Real *to, const Real *from, const Real *packed) const {
        row_blocks<R>(first_key(begin), position(end), [&](int64_t key, auto count) {
            Tile<Real, decltype(count)::value, PANEL> tile([](int, int) { return V{}; });
            tile.add(from + key * P, P, 1, packed, QUERIES, a.head_dim);
            tile.finish([&](int r, int v, V sum) { store<Real>(to + (key + r) * QUERIES + v * L, sum); });
        });
    }

    // Sum n rows of head_dim values, for each of N rows of weights: a sum starts at `initial(r, column)`,
    // and `take(r, column, sum)` receives it, vector by vector.
    template <int N, class Initial, class Take>
    INLINE void sum_rows(
        const Real *weights, int64_t weights_row, int64_t weights_value, const Real *rows, int64_t n,
        const Initial &initial, const Take &take
    ) const {
        for (int64_t column = 0; column < P; column += PANEL * L)
            with_panel<Real>(a.head_dim - column, [&](auto count, auto half) {
                Tile<Real, N, decltype(count)::value, decltype(half)::value> tile([&](int r, int v) {
                    return initial(r, column + v * L);
                });
                tile.add(weights, weights_row, weights_value, rows + column, P, n);
                tile.finish([&](int r, int v, V sum) { take(r, column + v * L, sum); });
            });
    }

    // Sum keys, or values, weighted by the scores of each query: `take(i, column, sum)`.
    template <class Take> void sum_keys(const Real *by, const Real *from, const Take &take) const {
        row_blocks<R>(begin, end, [&](int64_t i, auto count) {
            constexpr int N = decltype(count)::value;
            const int64_t key = first_key(i), n = position(i + N) - key;
            sum_rows<N>(
                by + key * QUERIES + i - begin, 1, QUERIES, from + key * P, n,
                [](int, int64_t) { return V{}; },
                [&](int r, int64_t column, V sum) { take(i + r, column, sum); }
            );
        });
    }

    // Add to the gradient of each key, or value, the sum of the piece's rows, weighted by its scores.
    void add_queries(Real *to, const Real *by, const Real *from) const {
        row_blocks<R>(first_key(begin), position(end), [&](int64_t key, auto count) {
            constexpr int N = decltype(count)::value;
            const int64_t own = key - position(0), i = max(own, begin);
            Real *place = to + key * P;
            sum_rows<N>(
                by + key * QUERIES + i - begin, QUERIES, 1, from + (i - begin) * P,
                min(own + N - 1 + window, end) - i,
                [&](int r, int64_t column) { return load<Real>(place + r * P + column); },
                [&](int r, int64_t column, V sum) { store<Real>(place + r * P + column, sum); }
            );
        });
    }

    // For the vector of queries that begins with i, call `work(at, mask)` for each key of the piece: where
    // their scores with it are, and which of the queries attend to it: from `full` to `stop`, all.
    template <class Work> INLINE void each_key(int64_t i, const Work &work) const {
        Bits last, first;
        for (int j = 0; j < L; j++) last[j] = position(i + j), first[j] = last[j] + 1 - window;
        const auto masked = [&](int64_t at, int64_t stop) {
            for (; at < stop; at++)
                work(at * QUERIES + i - begin, (last >= int(at)) & (first <= int(at)));
        };
        const int64_t full = min(first_key(i + L - 1), position(end)), stop = max(position(i) + 1, full);
        masked(first_key(begin), full);
        for (int64_t at = full; at < stop; at++) work(at * QUERIES + i - begin, ~Bits{});
        masked(stop, position(end));
    }

    void forward() const {
        multiply_keys(scores, k, packed_q);
        for (int64_t i = begin; i < end; i += L) {
            V largest = V{} - __builtin_inf(), sum = {};
            each_key(i, [&](int64_t at, Bits mask) {
                const V score = load<Real>(scores + at);
                largest = mask & (score > largest) ? score : largest;
            });
            each_key(i, [&](int64_t at, Bits mask) {
                const V power = exp_minus<Real>(load<Real>(scores + at) - largest, 0);
                const V shown = mask ? power : V{};
                sum += shown;
                store<Real>(scores + at, shown);
            });
            store_part<Real>(a.row_max + saved + i, largest, end - i);
            store_part<Real>(a.row_scale + saved + i, 1 / sum, end - i);
        }
        sum_keys(scores, v, [&](int64_t i, int64_t column, V sum) {
            const V value = sum * a.row_scale[saved + i];
            store_part<Real>(a.output + query_at(i) + column, value, a.head_dim - column);
        });
    }

    void backward() const {
        multiply_keys(scores, k, packed_q);
        multiply_keys(d_scores, v, packed_d);
        for (int64_t i = begin; i < end; i += L) {
            const V largest = load_part<Real>(a.row_max + saved + i, end - i);
            const V factor = load_part<Real>(a.row_scale + saved + i, end - i);
            V mean = {};  // of d_scores, by probability
            each_key(i, [&](int64_t at, Bits mask) {
                const V power = exp_minus<Real>(load<Real>(scores + at) - largest, 0);
                const V probability = mask ? power * factor : V{};
                store<Real>(scores + at, probability);
                mean = mask ? fma(probability, load<Real>(d_scores + at), mean) : mean;
            });
            each_key(i, [&](int64_t at, Bits mask) {
                const V d = load<Real>(scores + at) * (load<Real>(d_scores + at) - mean);
                store<Real>(d_scores + at, mask ? d : V{});
            });
        }
        sum_keys(d_scores, k, [&](int64_t i, int64_t column, V sum) {
            store<Real>(d_q + (i - begin) * P + column, sum);
        });
        for (int64_t i = begin; i < end; i++)
            rotate(d_q + (i - begin) * P, a.d_q + query_at(i), position(i), scale, -1);
        add_queries(d_v, scores, d_output);
        add_queries(d_k, d_scores, q);
    }

    void run(int64_t item) {
        sequence = item / a.key_heads, key_head = item % a.key_heads;
        for (int64_t i = 0; i < a.keys; i++) {
            prefetch(a.k + key_at(i + 8)), prefetch(a.v + key_at(i + 8));
            rotate(a.k + key_at(i), k + i * P, i, 1, 1);
            __builtin_memcpy(v + i * P, a.v + key_at(i), a.head_dim * sizeof(Real));
        }
        for (int64_t i = 0; BACKWARD && i < a.keys * P; i++) d_k[i] = d_v[i] = 0;
        const int64_t group = a.heads / a.key_heads;
        for (head = key_head * group; head < (key_head + 1) * group; head++) {
            saved = (sequence * a.heads + head) * a.time;
            for (begin = 0; begin < a.time; begin += QUERIES) {
                end = min(begin + QUERIES, a.time);
                load_queries();
                if constexpr (BACKWARD) backward();
                else forward();
            }
        }
        for (int64_t i = 0; BACKWARD && i < a.keys; i++) {
            rotate(d_k + i * P, a.d_k + key_at(i), i, 1, -1);
            __builtin_memcpy(a.d_v + key_at(i), d_v + i * P, a.head_dim * sizeof(Real));
        }
    }
};

template <class Head, class Real> struct Kernel {
    const Attention<Real> &a;
    const int64_t items = a.batch * a.key_heads;
    int64_t bytes;  // of a thread's workspace
    char *memory;

    Kernel(const Attention<Real> &a, Workspace &workspace) : a(a) {
        Workspace size(nullptr);
        Head(a, size);
        bytes = size.bytes();
        memory = workspace.take<char>(min(a.threads, items) * bytes);
    }

    void run() const {
        parallel_for(a.threads, items, [&](int64_t begin, int64_t end, int64_t thread) {
            Workspace slice(memory + thread * bytes);
            Head head(a, slice);
            // No result depends on padding, but denormal numbers in it cost time.
            __builtin_memset(memory + thread * bytes, 0, bytes);
            for (int64_t item = begin; item < end; item++) head.run(item);
        });
    }
};

EXPORT(attention_forward, Attention<REAL>, Kernel<Head<REAL, false>, REAL>)
EXPORT(attention_backward, Attention<REAL>, Kernel<Head<REAL, true>, REAL>)
