// Threads: a static partition of independent items. No item's result depends on the partition, so that
// any number of threads gives the same bits.

#pragma once

#include <cstdint>
#include <type_traits>

// Items of one kind, and `work(begin, end)`, or `work(begin, end, thread)`, on a range of them.
template <class Work> struct Items {
    int64_t count;
    Work work;

    void run_share(int64_t thread, int64_t threads) const {
        const int64_t each = (count + threads - 1) / threads, begin = thread * each;
        if (begin >= count) return;
        const int64_t end = begin + each < count ? begin + each : count;
        if constexpr (std::is_invocable_v<const Work &, int64_t, int64_t, int64_t>)
            work(begin, end, thread);
        else
            work(begin, end);
    }
};
template <class Work> Items(int64_t, Work) -> Items<Work>;

// Share items of several kinds among threads: each takes its part of the first kind and then, without
// waiting for the others, its part of the next. Worker threads treat denormal numbers as the caller.
template <class... Works> static void parallel(int64_t threads, const Items<Works> &...items) {
    int64_t most = 0;
    ((most = items.count > most ? items.count : most), ...);
    if (most < 1) return;
    if (threads > most) threads = most;
#if defined(__x86_64__)
    const unsigned mode = __builtin_ia32_stmxcsr();
#endif
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t thread = 0; thread < threads; thread++) {
#if defined(__x86_64__)
        const unsigned before = __builtin_ia32_stmxcsr();
        __builtin_ia32_ldmxcsr(mode);
#endif
        (items.run_share(thread, threads), ...);
#if defined(__x86_64__)
        __builtin_ia32_ldmxcsr(before);
#endif
    }
}

template <class Work> static void parallel_for(int64_t threads, int64_t count, const Work &work) {
    parallel(threads, Items<const Work &>{count, work});
}
