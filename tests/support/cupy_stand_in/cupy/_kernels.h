// CUDA C++ on the host: each thread of a block is a fiber, the blocks run one after the other.
//
// A fiber runs until it waits or ends, then another does, in a drawn order; so do the blocks. That
// shows a barrier that is missing, or that not all threads reach. It does not show an addition that
// should be atomic and is not. What NVRTC knows without a header is here in part; what is not does not
// compile. No memory model of a device, no warp that runs in step, no blocks at the same time.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __constant__ static
#define __shared__ static
#define __CUDA_ARCH__ 800

struct uint3 {
    unsigned int x, y, z;
};
struct dim3 {
    unsigned int x = 1, y = 1, z = 1;
};

constexpr int warpSize = 32;
// Of the fiber that runs: one launch at a time.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace stand_in {

struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A stack to run on. Between its turns it is where `here` says.
struct Fiber {
    static constexpr size_t size = 1 << 16;
    std::unique_ptr<char[]> stack{new char[size]};
    ucontext_t start;
    jmp_buf here;
    bool started = false;
};

enum class State { ready, at_block, at_warp, done };

struct Thread {
    uint3 index;
    State state = State::ready;
    Fiber* fiber = nullptr;
    unsigned char slot[16];  // what it hands the other lanes of its warp
};

inline std::mutex launching;
inline jmp_buf scheduler;
inline std::vector<std::unique_ptr<Fiber>> fibers;
inline std::vector<Fiber*> idle;
inline std::vector<Thread> threads;
inline unsigned running;             // the thread whose turn it is
inline std::function<void()> body;   // what each thread does
inline std::string problem;
inline std::unique_ptr<double[]> dynamic;  // shared memory of the launch, none where it asks for none

// Give the turn back.
inline void pause(State state) {
    Thread& self = threads[running];
    self.state = state;
    if (_setjmp(self.fiber->here) == 0) _longjmp(scheduler, 1);
}

inline void live() {
    for (;;) {
        try {
            body();
        } catch (const std::exception& error) {
            problem = error.what();
        }
        pause(State::done);
    }
}

// Let a thread run until it waits or ends.
inline void turn(unsigned number) {
    running = number;
    Thread& thread = threads[number];
    if (!thread.fiber) {
        if (idle.empty()) {
            fibers.push_back(std::make_unique<Fiber>());
            idle.push_back(fibers.back().get());
        }
        thread.fiber = idle.back();
        idle.pop_back();
    }
    threadIdx = thread.index;
    Fiber* fiber = thread.fiber;
    if (_setjmp(scheduler) == 0) {
        if (fiber->started) _longjmp(fiber->here, 1);
        fiber->started = true;
        getcontext(&fiber->start);
        fiber->start.uc_stack.ss_sp = fiber->stack.get();
        fiber->start.uc_stack.ss_size = Fiber::size;
        fiber->start.uc_link = nullptr;
        makecontext(&fiber->start, live, 0);
        setcontext(&fiber->start);
    }
}

// Whether all that have not ended wait at a barrier of this kind: they go on then. None is no.
inline bool release(size_t first, size_t last, State barrier) {
    bool found = false;
    for (size_t i = first; i < last; ++i) {
        if (threads[i].state == State::done) continue;
        if (threads[i].state != barrier) return false;
        found = true;
    }
    for (size_t i = first; found && i < last; ++i)
        if (threads[i].state == barrier) threads[i].state = State::ready;
    return found;
}

inline bool release_any() {
    bool released = release(0, threads.size(), State::at_block);
    for (size_t first = 0; first < threads.size(); first += 32) {
        const size_t last = std::min(first + 32, threads.size());
        released |= release(first, last, State::at_warp);
    }
    return released;
}

// One block from its first thread to its last.
inline void run_block(std::mt19937& draw) {
    std::vector<unsigned> order(threads.size());
    std::iota(order.begin(), order.end(), 0u);
    size_t left = threads.size();
    while (left) {
        std::shuffle(order.begin(), order.end(), draw);
        for (unsigned number : order) {
            if (threads[number].state != State::ready) continue;
            turn(number);
            if (threads[number].state == State::done) {
                --left;
                idle.push_back(threads[number].fiber);
            }
        }
        if (left && !release_any()) {
            idle.clear();
            fibers.clear();
            throw Refused("some threads wait at a barrier that others do not reach");
        }
    }
}

template <typename... P>
std::string run(void (*kernel)(P...), void** args, const unsigned* sizes, size_t shared) {
    std::lock_guard<std::mutex> alone(launching);
    gridDim = {sizes[0], sizes[1], sizes[2]};
    blockDim = {sizes[3], sizes[4], sizes[5]};
    problem.clear();
    dynamic.reset();
    if (shared) dynamic = std::make_unique<double[]>(shared / sizeof(double) + 1);
    body = [&] {
        size_t i = 0;
        std::tuple<std::remove_cv_t<P>...> values{*static_cast<std::remove_cv_t<P>*>(args[i++])...};
        std::apply(kernel, values);
    };
    std::mt19937 draw(sizes[0] + 31 * sizes[3]);
    std::vector<unsigned> order(gridDim.x * gridDim.y * gridDim.z);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), draw);
    for (unsigned block : order) {
        blockIdx = {block % gridDim.x, block / gridDim.x % gridDim.y,
                    block / (gridDim.x * gridDim.y)};
        threads.assign(blockDim.x * blockDim.y * blockDim.z, Thread());
        for (unsigned i = 0; i < threads.size(); ++i)
            threads[i].index = {i % blockDim.x, i / blockDim.x % blockDim.y,
                                i / (blockDim.x * blockDim.y)};
        if (shared) memset(dynamic.get(), 0xff, shared);  // NaN
        try {
            run_block(draw);
        } catch (const Refused& error) {
            if (problem.empty()) problem = error.what();
        }
        if (!problem.empty()) break;
    }
    return problem;
}

// What `extern __shared__` declares.
template <typename T>
T* shared_memory() {
    if (!dynamic) throw Refused("it has extern __shared__, and the launch no shared_mem");
    return reinterpret_cast<T*>(dynamic.get());
}

inline unsigned lane() { return running % 32; }

// Every lane gives a value, and takes that of another.
template <typename T>
T exchange(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 16);
    const size_t first = running / 32 * 32, last = std::min(first + 32, threads.size());
    const auto check = [&] {
        for (size_t i = first; i < last; ++i)
            if ((mask >> (i - first) & 1) != (threads[i].state != State::done))
                throw Refused("a warp's exchange whose mask is not that of its lanes that still run");
    };
    check();
    memcpy(threads[running].slot, &value, sizeof(T));
    pause(State::at_warp);
    check();  // some may have ended instead
    T found = value;
    if (first + source < last) memcpy(&found, threads[first + source].slot, sizeof(T));
    pause(State::at_warp);
    return found;
}

// A letter and a size for each parameter: p a pointer to b, i, u, f or anything else.
template <typename T>
char kind() {
    if (std::is_same_v<T, bool>) return 'b';
    if (std::is_integral_v<T>) return std::is_signed_v<T> ? 'i' : 'u';
    return std::is_floating_point_v<T> ? 'f' : 'o';
}

template <typename P>
std::string described() {
    using T = std::remove_cv_t<P>;
    if constexpr (std::is_pointer_v<T>) {
        using To = std::remove_cv_t<std::remove_pointer_t<T>>;
        if constexpr (std::is_void_v<To>) return "po0 ";
        else return std::string("p") + kind<To>() + std::to_string(sizeof(To)) + " ";
    } else {
        return kind<T>() + std::to_string(sizeof(T)) + " ";
    }
}

template <typename... P>
std::string signature(void (*)(P...)) {
    return (std::string() + ... + described<P>());
}

template <typename T, typename F>
T update(T* address, F changed) {
    std::atomic_ref<T> cell(*address);
    T before = cell.load();
    while (!cell.compare_exchange_weak(before, changed(before))) {
    }
    return before;
}

// The type of the value follows that of the address, as with the overloads of CUDA.
template <typename T>
using same = std::type_identity_t<T>;

}  // namespace stand_in

inline void __syncthreads() { stand_in::pause(stand_in::State::at_block); }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { __threadfence(); }
inline void __threadfence_system() { __threadfence(); }
inline void __syncwarp(unsigned mask = ~0u) { stand_in::exchange(mask, 0, 0); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    const int lane = stand_in::lane();
    return stand_in::exchange(mask, value, lane / width * width + (source & (width - 1)));
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = stand_in::lane();
    return stand_in::exchange(mask, value, lane % width + delta < width ? lane + delta : lane);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    const unsigned lane = stand_in::lane();
    return stand_in::exchange(mask, value, lane % width >= delta ? lane - delta : lane);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const unsigned lane = stand_in::lane(), other = lane ^ lanes;
    return stand_in::exchange(mask, value, other / width == lane / width ? other : lane);
}

template <typename T>
T atomicAdd(T* address, stand_in::same<T> value) {
    static_assert(!(std::is_integral_v<T> && std::is_signed_v<T> && sizeof(T) == 8),
                  "CUDA has no atomicAdd of long long: take unsigned long long");
    return stand_in::update(address, [=](T before) { return before + value; });
}
template <typename T>
T atomicSub(T* address, stand_in::same<T> value) {
    return stand_in::update(address, [=](T before) { return before - value; });
}
template <typename T>
T atomicExch(T* address, stand_in::same<T> value) {
    return stand_in::update(address, [=](T) { return value; });
}
template <typename T>
T atomicMax(T* address, stand_in::same<T> value) {
    static_assert(std::is_integral_v<T>, "CUDA has atomicMax of integers alone");
    return stand_in::update(address, [=](T before) { return before < value ? value : before; });
}
template <typename T>
T atomicMin(T* address, stand_in::same<T> value) {
    static_assert(std::is_integral_v<T>, "CUDA has atomicMin of integers alone");
    return stand_in::update(address, [=](T before) { return value < before ? value : before; });
}
template <typename T>
T atomicCAS(T* address, stand_in::same<T> expected, stand_in::same<T> value) {
    std::atomic_ref<T>(*address).compare_exchange_strong(expected, value);
    return expected;
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
    return stand_in::update(address, [=](unsigned before) { return before >= limit ? 0 : before + 1; });
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
    return stand_in::update(address, [=](unsigned before) {
        return before == 0 || before > limit ? limit : before - 1;
    });
}

template <typename T>
T __ldg(const T* address) {
    return *address;
}
inline float __int_as_float(int bits) {
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}
inline double __longlong_as_double(long long bits) {
    double found;
    memcpy(&found, &bits, sizeof found);
    return found;
}
inline long long __double_as_longlong(double value) {
    long long found;
    memcpy(&found, &value, sizeof found);
    return found;
}
inline int __float_as_int(float value) {
    int found;
    memcpy(&found, &value, sizeof found);
    return found;
}
inline double rsqrt(double x) { return 1 / sqrt(x); }
inline float rsqrtf(float x) { return 1 / sqrtf(x); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(bits) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }

// CUDA's max and min take two numbers of any types.
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
    if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>)
        return fmax(std::common_type_t<A, B>(a), std::common_type_t<A, B>(b));
    else
        return std::common_type_t<A, B>(a) < std::common_type_t<A, B>(b) ? b : a;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
    if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>)
        return fmin(std::common_type_t<A, B>(a), std::common_type_t<A, B>(b));
    else
        return std::common_type_t<A, B>(b) < std::common_type_t<A, B>(a) ? b : a;
}
