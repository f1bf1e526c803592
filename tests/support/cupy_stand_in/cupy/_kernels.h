// CUDA C++ on the host: each thread of a block is a thread here, the blocks run one after the other.
//
// What NVRTC knows without a header, as far as it is here; what is not here does not compile. No
// memory model of a device, no warp that runs in step, no blocks at the same time: a kernel that waits
// for a later block hangs.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdio.h>

#include <atomic>
#include <barrier>
#include <cassert>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
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
inline thread_local uint3 threadIdx, blockIdx;
inline thread_local dim3 blockDim, gridDim;

namespace stand_in {

struct Refused : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// What the lanes of a warp hand each other.
struct Warp {
    explicit Warp(unsigned lanes) : size(lanes), barrier(lanes) {}
    unsigned size;
    std::barrier<> barrier;
    unsigned char slots[32][16];
};

// One block while it runs.
struct Block {
    explicit Block(unsigned threads) : barrier(threads) {
        for (unsigned first = 0; first < threads; first += 32)
            warps.push_back(std::make_unique<Warp>(threads - first < 32 ? threads - first : 32));
    }
    std::barrier<> barrier;
    std::vector<std::unique_ptr<Warp>> warps;
};

inline std::unique_ptr<Block> block;
inline std::unique_ptr<double[]> dynamic;  // shared memory of the launch, none where it asks for none
inline std::mutex launching;               // static shared memory is of one launch at a time

// What `extern __shared__` declares.
template <typename T>
T* shared_memory() {
    if (!dynamic) throw Refused("it has extern __shared__, and the launch no shared_mem");
    return reinterpret_cast<T*>(dynamic.get());
}

inline unsigned linear_thread() {
    return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}

// Every lane gives a value, and takes that of another.
template <typename T>
T exchange(unsigned mask, T value, unsigned source) {
    static_assert(sizeof(T) <= 16);
    const unsigned thread = linear_thread();
    Warp& warp = *block->warps[thread / 32];
    const unsigned all = warp.size == 32 ? ~0u : (1u << warp.size) - 1;
    if ((mask & all) != all) throw Refused("a warp's exchange with a mask that leaves lanes out");
    const unsigned lane = thread % 32;
    memcpy(warp.slots[lane], &value, sizeof(T));
    warp.barrier.arrive_and_wait();
    T found = value;
    if (source < warp.size) memcpy(&found, warp.slots[source], sizeof(T));
    warp.barrier.arrive_and_wait();
    return found;
}

inline unsigned lane() { return linear_thread() % 32; }

template <typename... P>
std::string run(void (*kernel)(P...), void** args, const unsigned* sizes, size_t shared) {
    std::lock_guard<std::mutex> alone(launching);
    const dim3 grid{sizes[0], sizes[1], sizes[2]}, threads{sizes[3], sizes[4], sizes[5]};
    const unsigned blocks = grid.x * grid.y * grid.z, count = threads.x * threads.y * threads.z;
    dynamic.reset();
    if (shared) dynamic = std::make_unique<double[]>(shared / sizeof(double) + 1);
    const auto forget = [&] { if (shared) memset(dynamic.get(), 0xff, shared); };
    unsigned at = 0;
    std::string problem;
    std::mutex noting;
    // Between two blocks: new barriers, and shared memory that holds NaN.
    auto turn = [&]() noexcept {
        forget();
        if (++at < blocks) block = std::make_unique<Block>(count);
    };
    block = std::make_unique<Block>(count);
    forget();
    std::barrier<decltype(turn)> next(count, turn);
    auto thread = [&](unsigned number) {
        blockDim = threads;
        gridDim = grid;
        threadIdx = {number % threads.x, number / threads.x % threads.y,
                     number / (threads.x * threads.y)};
        for (unsigned index = 0; index < blocks; ++index) {
            blockIdx = {index % grid.x, index / grid.x % grid.y, index / (grid.x * grid.y)};
            try {
                size_t i = 0;
                std::tuple<std::remove_cv_t<P>...> values{
                    *static_cast<std::remove_cv_t<P>*>(args[i++])...};
                std::apply(kernel, values);
            } catch (const std::exception& error) {
                std::lock_guard<std::mutex> lock(noting);
                problem = error.what();
            }
            // Who has returned, the others do not wait for.
            block->barrier.arrive_and_drop();
            block->warps[number / 32]->barrier.arrive_and_drop();
            next.arrive_and_wait();
        }
    };
    std::vector<std::thread> running;
    for (unsigned number = 0; number < count; ++number) running.emplace_back(thread, number);
    for (auto& one : running) one.join();
    return problem;
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

inline void __syncthreads() { stand_in::block->barrier.arrive_and_wait(); }
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
