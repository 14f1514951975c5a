// LSTM, GRU and tanh RNN layers over a whole sequence, forward and backward.
//
// A time step is a small matrix product and the activations of its gates.
// - A hidden tile is as many units as a vector has lanes. The weights of all its gates lie together in
//   the order in which they are read, and its activations follow while the sums are in cache L1.
// - A thread takes its rows of the batch through all time steps: threads never wait for each other, and
//   a row's result does not depend on their number.
// - Backward stops at the time step before which all gradients are zero.
// - Backward takes some time steps, a chunk, and then adds their products to the gradients of the
//   weights, while the gates' gradients are in cache. There, threads share the output, not the sums.

#include "arguments.h"
#include "gemm.h"
#include "parallel.h"

ARGUMENTS(
    Recurrent,
    int64_t threads, time, batch, dim, width;  // width: hidden units
    const Real *x;                             // (time, batch, dim)
    const Real *w_ih, *w_hh, *b_ih, *b_hh;     // as torch.nn.LSTM, GRU and RNN have them
    const Real *h0, *c0;                       // (batch, width)
    Real *output;                              // (time, batch, width)
    // LSTM: the cell states, (time, batch, width); or with cells_step = 0 the last alone, (batch, width).
    Real *cells;
    int64_t cells_step;
    Real *gates;                               // saved for backward: (time, batch, tile, 4, lane); or null
    const Real *d_output;                      // (time, batch, width) with these strides; or null
    int64_t d_output_step, d_output_row;
    Real *d_h, *d_c;                           // (batch, width): in: of the final state; out: of the initial
    Real *d_x;                                 // (time, batch, dim); or null
    Real *d_w_ih, *d_w_hh, *d_b_ih, *d_b_hh;
    void *workspace;
)

constexpr int64_t PIECE = 64;  // rows of the weights' gradient that are summed at once: in cache L2
constexpr int64_t CHUNK = 256;  // rows that backward keeps of the slots' gradients: in cache L3

// The tensors at one time step, row of the batch and hidden tile.
template <class Real> struct Step {
    int64_t units;  // of this tile
    const Real *h, *c;
    Real *next_h, *next_c, *gates;

    Step(const Recurrent<Real> &a, int64_t t, int64_t row, int64_t tile) {
        const int64_t unit = tile * LANES<Real>, size = a.batch * a.width, at = row * a.width + unit;
        units = a.width - unit;
        h = (t ? a.output + (t - 1) * size : a.h0) + at;
        next_h = a.output + t * size + at;
        c = next_c = nullptr;
        if (a.cells) {
            c = (t ? a.cells + (t - 1) * a.cells_step : a.c0) + at;
            next_c = a.cells + t * a.cells_step + at;
        }
        gates = nullptr;
        if (a.gates)
            gates = a.gates + ((t * a.batch + row) * padded<Real>(a.width) + unit) * 4;
    }
    Vector<Real> load_units(const Real *from) const { return load_part<Real>(from, units); }
    void store_units(Real *to, Vector<Real> value) const { store_part<Real>(to, value, units); }
    void save(int slot, Vector<Real> value) const {
        if (gates) store<Real>(gates + slot * LANES<Real>, value);
    }
    Vector<Real> saved(int slot) const { return load<Real>(gates + slot * LANES<Real>); }
};

// The kinds of layers. GATES: in torch's order. With SEPARATE, the shares of input and state in a gate
// are kept apart. SLOTS: gradients of one time step, of which those of the state's share begin at
// STATE_SLOT. `backward` turns the gradients of the new state and cell into those of the slots, and of
// the old state, as far as it does not pass the weights, and the old cell.
struct Tanh {  // Elman 1990
    static constexpr int GATES = 1, SLOTS = 1, STATE_SLOT = 0;
    static constexpr bool SEPARATE = false;

    template <class Real, class V>
    static INLINE V forward(const Step<Real> &, const V *sum, const V *) {
        return tanh<Real>(sum[0]);
    }

    template <class Real, class V>
    static INLINE void backward(const Step<Real> &s, V &dh, V &, V *d) {
        const V h = s.load_units(s.next_h);
        d[0] = dh * (1 - h * h);
        dh = V{};
    }
};

struct Lstm {  // Hochreiter and Schmidhuber 1997, with forget gates: input, forget, cell, output
    static constexpr int GATES = 4, SLOTS = 4, STATE_SLOT = 0;
    static constexpr bool SEPARATE = false;

    template <class Real, class V>
    static INLINE V forward(const Step<Real> &s, const V *sum, const V *) {
        const V i = sigmoid<Real>(sum[0]), f = sigmoid<Real>(sum[1]);
        const V g = tanh<Real>(sum[2]), o = sigmoid<Real>(sum[3]);
        const V c = fma(f, s.load_units(s.c), i * g);
        s.store_units(s.next_c, c);
        s.save(0, i), s.save(1, f), s.save(2, g), s.save(3, o);
        return o * tanh<Real>(c);
    }

    template <class Real, class V>
    static INLINE void backward(const Step<Real> &s, V &dh, V &dc, V *d) {
        const V i = s.saved(0), f = s.saved(1), g = s.saved(2), o = s.saved(3);
        const V tanh_c = tanh<Real>(s.load_units(s.next_c));
        dc = fma(dh * o, 1 - tanh_c * tanh_c, dc);
        d[0] = dc * g * i * (1 - i);
        d[1] = dc * s.load_units(s.c) * f * (1 - f);
        d[2] = dc * i * (1 - g * g);
        d[3] = dh * tanh_c * o * (1 - o);
        dc *= f;
        dh = V{};
    }
};

// Cho et al. 2014, with the reset gate applied after the product, as cuDNN does: reset, update, new.
// The two shares of the new gate have different gradients. They are the first and the last slot, so that
// the three of the input and the three of the state each lie together.
struct Gru {
    static constexpr int GATES = 3, SLOTS = 4, STATE_SLOT = 1;
    static constexpr bool SEPARATE = true;

    template <class Real, class V>
    static INLINE V forward(const Step<Real> &s, const V *input, const V *state) {
        const V r = sigmoid<Real>(input[0] + state[0]), z = sigmoid<Real>(input[1] + state[1]);
        const V n = tanh<Real>(fma(r, state[2], input[2]));
        s.save(0, n), s.save(1, r), s.save(2, z), s.save(3, state[2]);
        return fma(z, s.load_units(s.h) - n, n);
    }

    template <class Real, class V>
    static INLINE void backward(const Step<Real> &s, V &dh, V &, V *d) {
        const V n = s.saved(0), r = s.saved(1), z = s.saved(2), share = s.saved(3);
        d[0] = dh * (1 - z) * (1 - n * n);
        d[1] = d[0] * share * r * (1 - r);
        d[2] = dh * (s.load_units(s.h) - n) * z * (1 - z);
        d[3] = d[0] * r;
        dh *= z;
    }
};

template <class Real, class Cell> struct Forward {
    static constexpr int G = Cell::GATES, L = LANES<Real>;
    const Recurrent<Real> &a;
    const int64_t tiles = vectors<Real>(a.width);
    // Of each tile: (dim, gate, lane), (width, gate, lane), and twice (gate, lane).
    Real *input_weights, *state_weights, *input_bias, *state_bias;
    Real *sums;  // of a tile, each row: (2, gate, lane)

    Forward(const Recurrent<Real> &a, Workspace &workspace)
        : a(a), input_weights(workspace.take<Real>(tiles * a.dim * G * L)),
          state_weights(workspace.take<Real>(tiles * a.width * G * L)),
          input_bias(workspace.take<Real>(tiles * G * L)),
          state_bias(workspace.take<Real>(tiles * G * L)),
          sums(workspace.take<Real>(a.batch * 2 * G * L)) {}

    // Pack the weights of a tile. In the last tile, gates are as wide as there are units left, so that as
    // few vectors as possible are partly empty.
    void pack_tile(int64_t tile) const {
        const int64_t units = min(a.width - tile * L, L), size = vectors<Real>(G * units) * L;
        const auto pack_rows = [&](Real *to, const Real *from, int64_t n) {
            for (int64_t j = 0; j < size; j++) {
                const int64_t row = j / units * a.width + tile * L + j % units;
                for (int64_t k = 0; k < n; k++) to[k * size + j] = j < G * units ? from[row * n + k] : 0;
            }
        };
        pack_rows(input_weights + tile * a.dim * G * L, a.w_ih, a.dim);
        pack_rows(state_weights + tile * a.width * G * L, a.w_hh, a.width);
        pack_rows(input_bias + tile * G * L, a.b_ih, 1);
        pack_rows(state_bias + tile * G * L, a.b_hh, 1);
        if (Cell::SEPARATE) return;
        for (int64_t j = 0; j < size; j++) input_bias[tile * G * L + j] += state_bias[tile * G * L + j];
    }

    // Sum a tile's gates at one time step.
    void multiply(int64_t t, int64_t tile, int64_t begin, int64_t end) const {
        const Real *x = a.x + t * a.batch * a.dim;
        const Real *h = t ? a.output + (t - 1) * a.batch * a.width : a.h0;
        with_constant<G>(vectors<Real>(G * min(a.width - tile * L, L)), [&](auto count) {
            constexpr int V = decltype(count)::value;
            row_blocks<ROWS<V>>(begin, end, [&](int64_t row, auto rows) {
                constexpr int R = decltype(rows)::value;
                const auto at = [&](const Real *bias) {
                    return [=](int, int v) { return load<Real>(bias + (tile * G + v) * L); };
                };
                const auto put = [&](Real *to) {
                    return [=](int r, int v, Vector<Real> sum) {
                        store<Real>(to + ((row + r) * 2 * G + v) * L, sum);
                    };
                };
                const auto add_state = [&](Tile<Real, R, V> &sum) {
                    const Real *weights = state_weights + tile * a.width * G * L;
                    sum.add(h + row * a.width, a.width, 1, weights, V * L, a.width);
                };
                Tile<Real, R, V> sum(at(input_bias));
                const Real *weights = input_weights + tile * a.dim * G * L;
                sum.add(x + row * a.dim, a.dim, 1, weights, V * L, a.dim);
                if constexpr (!Cell::SEPARATE) add_state(sum);
                sum.finish(put(sums));
                if constexpr (Cell::SEPARATE) {
                    Tile<Real, R, V> share(at(state_bias));
                    add_state(share);
                    share.finish(put(sums + G * L));
                }
            });
        });
    }

    void activate(int64_t t, int64_t tile, int64_t begin, int64_t end) const {
        const int64_t units = min(a.width - tile * L, L);
        for (int64_t row = begin; row < end; row++) {
            Vector<Real> input[G], state[G];
            const Real *from = sums + row * 2 * G * L;
            for (int gate = 0; gate < G; gate++, from += units) {
                input[gate] = load_part<Real>(from, units);
                if constexpr (Cell::SEPARATE) state[gate] = load_part<Real>(from + G * L, units);
            }
            const Step<Real> step(a, t, row, tile);
            step.store_units(step.next_h, Cell::template forward<Real>(step, input, state));
        }
    }

    void run() const {
        parallel_for(a.threads, tiles, [&](int64_t begin, int64_t end) {
            for (int64_t tile = begin; tile < end; tile++) pack_tile(tile);
        });
        parallel_for(a.threads, a.batch, [&](int64_t begin, int64_t end) {
            for (int64_t t = 0; t < a.time; t++)
                for (int64_t tile = 0; tile < tiles; tile++) {
                    multiply(t, tile, begin, end);
                    activate(t, tile, begin, end);
                }
        });
    }
};

// to = from * weights, or added to `to`, for rows of `width` columns, with packed weights of n rows. Not
// inlined, as all kinds of layers share it.
template <class Real>
static __attribute__((noinline)) void product(
    Real *to, int64_t to_row, bool add, const Real *from, int64_t from_row, int64_t rows,
    const Real *weights, int64_t n, int64_t width
) {
    multiply_packed<Real>(
        from, from_row, rows, weights, n, width,
        [&](int64_t row, int64_t at) {
            return add ? load_part<Real>(to + row * to_row + at, width - at) : Vector<Real>{};
        },
        [&](int64_t row, int64_t at, Vector<Real> sum) {
            store_part<Real>(to + row * to_row + at, sum, width - at);
        }
    );
}

// Add to the gradients of weights, (count, n), what some rows give: the products of values, of which
// those from `begin` to before `end` are wanted, with gradients `d` of n columns. With the first value,
// add the sums of `d`, the gradient of the bias, which is the last row.
template <class Real>
static __attribute__((noinline)) void add_weights(
    Real *to, int64_t n, const Real *values, int64_t count, int64_t begin, int64_t end, const Real *d,
    int64_t d_row, int64_t rows
) {
    constexpr int L = LANES<Real>;
    for (int64_t column = 0; column < n; column += PANEL * L) {
        const auto add = [&](int64_t value, int v, Vector<Real> sum) {
            Real *place = to + value * n + column + v * L;
            const int64_t left = n - column - v * L;
            store_part<Real>(place, load_part<Real>(place, left) + sum, left);
        };
        with_constant<PANEL>(min(vectors<Real>(n - column), PANEL), [&](auto width) {
            constexpr int V = decltype(width)::value;
            row_blocks<ROWS<V>>(begin, end, [&](int64_t value, auto block) {
                Tile<Real, decltype(block)::value, V> tile([](int, int) { return Vector<Real>{}; });
                tile.add(values + value, 1, count, d + column, d_row, rows);
                tile.finish([&](int r, int v, Vector<Real> sum) { add(value + r, v, sum); });
            });
            if (begin > 0) return;
            for (int v = 0; v < V; v++) {
                Vector<Real> sum = {};
                for (int64_t row = 0; row < rows; row++)
                    sum += load<Real>(d + row * d_row + column + v * L);
                add(count, v, sum);
            }
        });
    }
}

template <class Real, class Cell> struct Backward {
    static constexpr int L = LANES<Real>;
    const Recurrent<Real> &a;
    const int64_t tiles = vectors<Real>(a.width), P = tiles * L, n = Cell::GATES * a.width;
    // Of a row of slots' gradients, (slot, width), shifted so that the state's are aligned: an odd number
    // of vectors, since rows a power of two apart would share few sets of the cache.
    const int64_t shift = padded<Real>(Cell::STATE_SLOT * a.width) - Cell::STATE_SLOT * a.width;
    const int64_t row_size = (vectors<Real>(shift + Cell::SLOTS * a.width) | 1) * L;
    Real *input_weights, *state_weights;  // packed: (n, dim) and (n, width)
    Real *d_h, *d_c;                      // (batch, P)
    const int64_t steps = min(max(CHUNK / max(a.batch, 1), 1), a.time);  // of a chunk
    Real *d_slots;                        // (steps, batch, row_size), and a vector more
    Real *d_input, *d_state;              // (dim + 1, n) and (width + 1, n); the last row is the bias
    bool *alive;                          // (batch): whether earlier steps of a row have gradients

    Backward(const Recurrent<Real> &a, Workspace &workspace)
        : a(a), input_weights(workspace.take<Real>(a.d_x ? n * padded<Real>(a.dim) : 0)),
          state_weights(workspace.take<Real>(n * P)), d_h(workspace.take<Real>(a.batch * P)),
          d_c(workspace.take<Real>(a.batch * P)),
          d_slots(workspace.take<Real>(steps * a.batch * row_size + L)),
          d_input(workspace.take<Real>((a.dim + 1) * n)),
          d_state(workspace.take<Real>((a.width + 1) * n)),
          alive(workspace.take<bool>(a.batch)) {}

    // The torch gate of one of the input's slots: with separate shares, the last gate is the first slot.
    int64_t gate_row(int64_t column) const {
        return Cell::SEPARATE ? (column + n - a.width) % n : column;
    }

    // The slots of a row of a chunk's rows, (step, batch).
    Real *slots(int64_t row) const { return d_slots + row * row_size + shift; }

    // Gradients of the slots of a time step, `to` for its first row; return whether there were any.
    bool activate(int64_t t, int64_t begin, int64_t end, Real *to) const {
        typedef Vector<Real> V;
        typename Format<Real>::Bits any = {};
        for (int64_t row = begin; row < end; row++, to += row_size) {
            for (int64_t tile = 0; tile < tiles; tile++) {
                const Step<Real> step(a, t, row, tile);
                const int64_t unit = tile * L, at = row * P + unit;
                V dh = load<Real>(d_h + at), dc = load<Real>(d_c + at), d[Cell::SLOTS];
                if (a.d_output)
                    dh += step.load_units(
                        a.d_output + t * a.d_output_step + row * a.d_output_row + unit
                    );
                any |= dh != 0;
                any |= dc != 0;
                Cell::template backward<Real>(step, dh, dc, d);
                store<Real>(d_h + at, dh);
                store<Real>(d_c + at, dc);
                for (int slot = 0; slot < Cell::SLOTS; slot++)
                    step.store_units(to + slot * a.width + unit, d[slot]);
            }
        }
        for (int i = 0; i < L; i++)
            if (any[i]) return true;
        return false;
    }

    // Take some rows back through the steps of a chunk. Without gradients left, set their slots to zero.
    void through_time(int64_t first, int64_t last, int64_t begin, int64_t end) const {
        const int64_t rows = end - begin;
        for (int64_t t = last - 1; t >= first; t--) {
            Real *d = slots((t - first) * a.batch + begin);
            Real *d_x = a.d_x ? a.d_x + (t * a.batch + begin) * a.dim : nullptr;
            if (alive[begin] && !activate(t, begin, end, d) && !a.d_output)
                for (int64_t row = begin; row < end; row++) alive[row] = false;
            if (!alive[begin]) {
                for (int64_t row = 0; row < rows; row++)
                    __builtin_memset(d + row * row_size, 0, Cell::SLOTS * a.width * sizeof(Real));
                if (d_x) __builtin_memset(d_x, 0, rows * a.dim * sizeof(Real));
                continue;
            }
            product<Real>(
                d_h + begin * P, P, true, d + Cell::STATE_SLOT * a.width, row_size, rows,
                state_weights, n, a.width
            );
            if (d_x) product<Real>(d_x, a.dim, false, d, row_size, rows, input_weights, n, a.dim);
        }
    }

    // Add to the gradients of the weights of some inputs or states what a chunk gives: sums of pieces,
    // since one long sum would round off more.
    void add_chunk(
        Real *to, const Real *initial, const Real *values, int64_t count, int64_t begin, int64_t end,
        int64_t first, int64_t last, int slot
    ) const {
        for (int64_t row = first * a.batch; row < last * a.batch;) {
            // At the first time step, the states are in a tensor of their own.
            const bool at_start = initial && row < a.batch;
            const int64_t rows = min((at_start ? a.batch : last * a.batch) - row, PIECE);
            const Real *from = at_start ? initial + row * count
                                        : values + (initial ? row - a.batch : row) * count;
            const Real *d = slots(row - first * a.batch) + slot * a.width;
            add_weights<Real>(to, n, from, count, begin, end, d, row_size, rows);
            row += rows;
        }
    }

    void run() const {
        parallel(
            a.threads, Items{1, [&](int64_t, int64_t) {
                pack<Real>(state_weights, n, a.width, [&](int64_t gate, int64_t unit) {
                    return a.w_hh[gate * a.width + unit];
                });
            }},
            Items{a.d_x ? 1 : 0, [&](int64_t, int64_t) {
                pack<Real>(input_weights, n, a.dim, [&](int64_t column, int64_t value) {
                    return a.w_ih[gate_row(column) * a.dim + value];
                });
            }}
        );
        parallel_for(a.threads, a.batch, [&](int64_t begin, int64_t end) {
            for (int64_t row = begin; row < end; row++)
                for (int64_t unit = 0; unit < P; unit += L) {
                    const int64_t at = row * a.width + unit, left = a.width - unit;
                    store<Real>(d_h + row * P + unit, load_part<Real>(a.d_h + at, left));
                    const Vector<Real> d = a.d_c ? load_part<Real>(a.d_c + at, left) : Vector<Real>{};
                    store<Real>(d_c + row * P + unit, d);
                }
        });
        for (int64_t row = 0; row < a.batch; row++) alive[row] = true;
        __builtin_memset(d_input, 0, (a.dim + 1) * n * sizeof(Real));
        __builtin_memset(d_state, 0, (a.width + 1) * n * sizeof(Real));
        constexpr int64_t VALUES = ROWS<PANEL>;
        const auto blocks = [&](int64_t count, const auto &work) {
            return Items{max(ceil_div(count, VALUES), 1), [=](int64_t begin, int64_t end) {
                work(begin * VALUES, min(end * VALUES, count));
            }};
        };
        int64_t first = a.time;
        for (bool any = true; any && first > 0;) {
            const int64_t last = first;
            first = max(last - steps, 0);
            parallel_for(a.threads, a.batch, [&](int64_t begin, int64_t end) {
                through_time(first, last, begin, end);
            });
            parallel(
                a.threads,
                blocks(a.width, [&](int64_t begin, int64_t end) {
                    const int slot = Cell::STATE_SLOT;
                    add_chunk(d_state, a.h0, a.output, a.width, begin, end, first, last, slot);
                }),
                blocks(a.dim, [&](int64_t begin, int64_t end) {
                    add_chunk(d_input, nullptr, a.x, a.dim, begin, end, first, last, 0);
                })
            );
            any = false;
            for (int64_t row = 0; row < a.batch; row++) any |= alive[row];
        }
        if (a.d_x) __builtin_memset(a.d_x, 0, first * a.batch * a.dim * sizeof(Real));
        parallel_for(a.threads, a.batch * P / L, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; i++) {
                const int64_t row = i / tiles, unit = i % tiles * L;
                const int64_t at = row * a.width + unit, left = a.width - unit;
                store_part<Real>(a.d_h + at, load<Real>(d_h + row * P + unit), left);
                if (a.d_c) store_part<Real>(a.d_c + at, load<Real>(d_c + row * P + unit), left);
            }
        });
        parallel_for(a.threads, n, [&](int64_t begin, int64_t end) {
            for (int64_t column = begin; column < end; column++) {
                const int64_t row = gate_row(column);
                for (int64_t k = 0; k < a.dim; k++) a.d_w_ih[row * a.dim + k] = d_input[k * n + column];
                for (int64_t k = 0; k < a.width; k++)
                    a.d_w_hh[column * a.width + k] = d_state[k * n + column];
                a.d_b_ih[row] = d_input[a.dim * n + column];
                a.d_b_hh[column] = d_state[a.width * n + column];
            }
        });
    }
};

EXPORT(rnn_tanh_forward, Recurrent<REAL>, Forward<REAL, Tanh>)
EXPORT(rnn_tanh_backward, Recurrent<REAL>, Backward<REAL, Tanh>)
EXPORT(lstm_forward, Recurrent<REAL>, Forward<REAL, Lstm>)
EXPORT(lstm_backward, Recurrent<REAL>, Backward<REAL, Lstm>)
EXPORT(gru_forward, Recurrent<REAL>, Forward<REAL, Gru>)
EXPORT(gru_backward, Recurrent<REAL>, Backward<REAL, Gru>)
