// What a CUDA kernel sees, on a processor: enough to run the sources of reidray/cuda as they are.
//
// Every CUDA thread of a block is a fiber. It runs until it meets a barrier, and the next one goes on; blocks run one
// after the other. The order of threads and blocks is given from outside (forward or backward): a kernel that needs one
// of them has a race. Threads that do not meet at a barrier, and arguments of another type than the kernel's, are errors.
#pragma once

#include <math.h>
#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ static
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

struct uint3 { unsigned x, y, z; };

static uint3 threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;

namespace emulated {

constexpr int kStack = 256 * 1024;
constexpr int kMostThreads = 1024;
constexpr int kWarp = 32;

struct Barrier {
  int size = 0, arrived = 0;
  unsigned generation = 0;
};

// Started once by its context, and from then on by jumps, which ask nothing of the kernel.
struct Fiber {
  ucontext_t context;
  jmp_buf place;
  char* stack = nullptr;
  bool started = false;
  Barrier* waits_at = nullptr;
  unsigned waits_for = 0;
  bool done = false;
};

static Fiber fibers[kMostThreads];
static jmp_buf scheduler;
static Barrier block_barrier, warp_barriers[kMostThreads / kWarp];
static unsigned long long exchanged[kMostThreads];
static int running = 0;
static char* dynamic_shared = nullptr;
static void (*body)(void*) = nullptr;
static void* body_argument = nullptr;

static void leave(Fiber& fiber) {
  if (!_setjmp(fiber.place)) _longjmp(scheduler, 1);
}

__attribute__((noinline)) static void resume(Fiber& fiber) {
  if (_setjmp(scheduler)) return;
  if (fiber.started) _longjmp(fiber.place, 1);
  fiber.started = true;
  setcontext(&fiber.context);
}

static void enter() {
  for (;;) {
    body(body_argument);
    fibers[running].done = true;
    leave(fibers[running]);
  }
}

static void meet(Barrier& barrier) {
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  Fiber& fiber = fibers[running];
  fiber.waits_at = &barrier;
  fiber.waits_for = barrier.generation + 1;
  leave(fiber);
}

static bool may_run(const Fiber& fiber) {
  return !fiber.done && (!fiber.waits_at || fiber.waits_at->generation >= fiber.waits_for);
}

static bool run_block(int threads, bool backward) {
  block_barrier = Barrier{threads, 0, 0};
  for (int w = 0; w * kWarp < threads; ++w) {
    const int rest = threads - w * kWarp;
    warp_barriers[w] = Barrier{rest < kWarp ? rest : kWarp, 0, 0};
  }
  for (int t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[t];
    fiber.waits_at = nullptr;
    fiber.done = false;
    if (fiber.started) continue;
    if (!fiber.stack) fiber.stack = static_cast<char*>(std::malloc(kStack));
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
  }
  for (int left = threads; left > 0;) {
    bool moved = false;
    for (int step = 0; step < threads; ++step) {
      const int t = backward ? threads - 1 - step : step;
      if (!may_run(fibers[t])) continue;
      moved = true;
      fibers[t].waits_at = nullptr;
      running = t;
      threadIdx = uint3{static_cast<unsigned>(t), 0, 0};
      resume(fibers[t]);
      left -= fibers[t].done;
    }
    if (moved) continue;
    for (int t = 0; t < threads; ++t) fibers[t].started = false;  // they stand in the middle of a kernel for ever
    return false;
  }
  return true;
}

// The type of a parameter: size in bytes and kind (i: integer, f: floating), with p before them for a pointer to it.
template <class T>
static void describe(char* text) {
  using Pointed = std::remove_cv_t<std::remove_pointer_t<T>>;
  std::snprintf(text, 8, "%s%c%d", std::is_pointer_v<T> ? "p" : "", std::is_floating_point_v<Pointed> ? 'f' : 'i',
                static_cast<int>(sizeof(Pointed)));
}

template <class... A, std::size_t... I>
static const char* launch(void (*kernel)(A...), std::index_sequence<I...>, int blocks, int threads, int shared_bytes,
                          int backward, int count, const char** kinds, void** arguments) {
  static char message[128];
  if (count != static_cast<int>(sizeof...(A))) {
    std::snprintf(message, sizeof message, "takes %d arguments; got %d", static_cast<int>(sizeof...(A)), count);
    return message;
  }
  char expected[sizeof...(A) + 1][8];
  (describe<A>(expected[I]), ...);
  for (int a = 0; a < count; ++a) {
    if (std::strcmp(expected[a], kinds[a]) != 0) {
      std::snprintf(message, sizeof message, "takes %s as argument %d; got %s", expected[a], a, kinds[a]);
      return message;
    }
  }
  struct Call { void (*kernel)(A...); void** arguments; } call{kernel, arguments};
  body = [](void* given) {
    Call& c = *static_cast<Call*>(given);
    c.kernel(*static_cast<std::remove_cv_t<A>*>(c.arguments[I])...);
  };
  body_argument = &call;
  dynamic_shared = static_cast<char*>(std::malloc(shared_bytes + 16));
  blockDim = uint3{static_cast<unsigned>(threads), 1, 1};
  gridDim = uint3{static_cast<unsigned>(blocks), 1, 1};
  const char* failure = nullptr;
  for (int step = 0; step < blocks && !failure; ++step) {
    blockIdx = uint3{static_cast<unsigned>(backward ? blocks - 1 - step : step), 0, 0};
    std::memset(dynamic_shared, 0xff, shared_bytes + 16);  // NaN: nothing may be read before it is written
    if (!run_block(threads, backward)) failure = "has threads that wait at a barrier which others never reach";
  }
  std::free(dynamic_shared);
  return failure;
}

template <class... A>
static const char* launch(void (*kernel)(A...), int blocks, int threads, int shared_bytes, int backward, int count,
                          const char** kinds, void** arguments) {
  return launch(kernel, std::index_sequence_for<A...>{}, blocks, threads, shared_bytes, backward, count, kinds,
                arguments);
}

// What another lane of the warp holds; all lanes that exist must ask at the same time.
template <class T>
static T from_lane(T value, int lane, int width) {
  static_assert(sizeof(T) <= sizeof(unsigned long long));
  const int self = running, first = self - self % kWarp;
  const int own = self % kWarp;
  const bool inside = lane / width == own / width && lane >= 0 && first + lane < static_cast<int>(blockDim.x);
  std::memcpy(&exchanged[self], &value, sizeof(T));
  meet(warp_barriers[self / kWarp]);
  T got = value;
  if (inside) std::memcpy(&got, &exchanged[first + lane], sizeof(T));
  meet(warp_barriers[self / kWarp]);
  return got;
}

}  // namespace emulated

// Barriers, and what lanes of one warp tell each other.

static inline void __syncthreads() { emulated::meet(emulated::block_barrier); }
static inline void __syncwarp(unsigned = 0xffffffffu) {
  emulated::meet(emulated::warp_barriers[emulated::running / emulated::kWarp]);
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <class T>
static inline T __shfl_sync(unsigned, T value, int lane, int width = 32) {
  const int own = emulated::running % 32;
  return emulated::from_lane(value, own / width * width + lane % width, width);
}
template <class T>
static inline T __shfl_down_sync(unsigned, T value, unsigned delta, int width = 32) {
  return emulated::from_lane(value, emulated::running % 32 + static_cast<int>(delta), width);
}
template <class T>
static inline T __shfl_up_sync(unsigned, T value, unsigned delta, int width = 32) {
  const int lane = emulated::running % 32 - static_cast<int>(delta);
  return emulated::from_lane(value, lane < 0 ? emulated::running % 32 : lane, width);
}
template <class T>
static inline T __shfl_xor_sync(unsigned, T value, int bits, int width = 32) {
  return emulated::from_lane(value, emulated::running % 32 ^ bits, width);
}
static inline unsigned __ballot_sync(unsigned, int predicate) {
  const int first = emulated::running / 32 * 32;
  const int lanes = static_cast<int>(blockDim.x) - first < 32 ? static_cast<int>(blockDim.x) - first : 32;
  emulated::exchanged[emulated::running] = predicate != 0;
  __syncwarp();
  unsigned votes = 0;
  for (int lane = 0; lane < lanes; ++lane) votes |= static_cast<unsigned>(emulated::exchanged[first + lane]) << lane;
  __syncwarp();
  return votes;
}
static inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }

// Atomics: only one fiber runs at a time.

template <class T>
static inline T atomicAdd(T* place, std::common_type_t<T> value) { T old = *place; *place = old + value; return old; }
template <class T>
static inline T atomicMin(T* place, std::common_type_t<T> value) { T old = *place; if (value < old) *place = value; return old; }
template <class T>
static inline T atomicMax(T* place, std::common_type_t<T> value) { T old = *place; if (value > old) *place = value; return old; }
template <class T>
static inline T atomicOr(T* place, std::common_type_t<T> value) { T old = *place; *place = old | value; return old; }
template <class T>
static inline T atomicExch(T* place, std::common_type_t<T> value) { T old = *place; *place = value; return old; }
template <class T>
static inline T atomicCAS(T* place, std::common_type_t<T> compared, std::common_type_t<T> value) {
  T old = *place;
  if (old == compared) *place = value;
  return old;
}

// Arithmetic.

template <class T>
static inline T min(T a, std::common_type_t<T> b) { return b < a ? b : a; }
template <class T>
static inline T max(T a, std::common_type_t<T> b) { return a < b ? b : a; }
template <class T>
static inline T __ldg(const T* place) { return *place; }
static inline float __int_as_float(int bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static inline int __float_as_int(float value) { int bits; std::memcpy(&bits, &value, 4); return bits; }
static inline float __uint_as_float(unsigned bits) { float value; std::memcpy(&value, &bits, 4); return value; }
static inline unsigned __float_as_uint(float value) { unsigned bits; std::memcpy(&bits, &value, 4); return bits; }
static inline double __longlong_as_double(long long bits) { double value; std::memcpy(&value, &bits, 8); return value; }
static inline long long __double_as_longlong(double value) { long long bits; std::memcpy(&bits, &value, 8); return bits; }
static inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
static inline int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
static inline int __ffs(int bits) { return __builtin_ffs(bits); }
static inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
