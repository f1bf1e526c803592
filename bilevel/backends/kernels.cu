// What one launch does for the methods of bilevel.backends._fused, in float and in double.
//
// Blocks are contiguous, n entries in rows of k columns: entry i is of column i % k. A thread stays
// in its column, since it goes on by a multiple of k. Sums are of one order for one launch: those
// of the threads of a block by a tree, those of the blocks by the block that ends last.
//
// Each kernel is right for any number of threads and blocks, one of either included.

const int THREADS = 256;

template <typename T>
struct Lane {
  int column, row, rows;  // of the thread; rows of threads in the block
  long long first, step;
  bool active;

  __device__ Lane(int k) {
    rows = blockDim.x / k;
    row = threadIdx.x / k;
    column = threadIdx.x % k;
    active = row < rows;
    step = (long long)rows * k * gridDim.x;
    first = (long long)rows * k * blockIdx.x + threadIdx.x;
  }
};

template <typename T>
struct Sum {
  __device__ static T of(T a, T b) { return a + b; }
};

template <typename T>
struct Largest {
  __device__ static T of(T a, T b) { return max(a, b); }
};

// What the rows of threads of a block hold, joined in each column, in the threads of the first row.
template <template <typename> class Join, typename T>
__device__ T over_rows(T own, const Lane<T>& lane, int k, T* shared) {
  __syncthreads();
  if (lane.active) shared[threadIdx.x] = own;
  __syncthreads();
  for (int half = 1; half < lane.rows; half *= 2) {
    if (lane.active && lane.row % (2 * half) == 0 && lane.row + half < lane.rows)
      shared[threadIdx.x] = Join<T>::of(shared[threadIdx.x], shared[threadIdx.x + half * k]);
    __syncthreads();
  }
  return lane.active ? shared[lane.column] : T(0);
}

// The sums over all blocks; true in the block that ends last, which alone has them.
template <typename T>
__device__ bool over_blocks(T& sum, const Lane<T>& lane, int k, T* partial, unsigned* counter,
                            T* shared) {
  __shared__ bool last;
  sum = over_rows<Sum>(sum, lane, k, shared);
  if (gridDim.x == 1) return true;
  if (threadIdx.x < k) partial[(long long)blockIdx.x * k + threadIdx.x] = sum;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
  __syncthreads();
  if (!last) return false;
  __threadfence();
  T all = 0;
  if (lane.active)
    for (int b = lane.row; b < gridDim.x; b += lane.rows)
      all += ((volatile T*)partial)[(long long)b * k + lane.column];
  sum = over_rows<Sum>(all, lane, k, shared);
  return true;
}

template <typename T>
__device__ void column_dot(const T* u, const T* v, long long n, int k, T* partial,
                           unsigned* counter, T* out) {
  __shared__ T shared[THREADS];
  Lane<T> lane(k);
  T sum = 0;
  if (lane.active)
    for (long long i = lane.first; i < n; i += lane.step) sum += u[i] * v[i];
  if (over_blocks(sum, lane, k, partial, counter, shared) && threadIdx.x < k)
    out[threadIdx.x] = sum;
}

// Of the sizes of the entries, each times the weight of its row where they are weighed.
template <typename T>
__device__ void absolute_sums(const T* w, const T* v, int weighed, long long n, int k, T* partial,
                              unsigned* counter, T* out) {
  __shared__ T shared[THREADS];
  Lane<T> lane(k);
  T sum = 0;
  if (lane.active)
    for (long long i = lane.first; i < n; i += lane.step)
      sum += abs(weighed ? w[i / k] * v[i] : v[i]);
  if (over_blocks(sum, lane, k, partial, counter, shared) && threadIdx.x < k)
    out[threadIdx.x] = sum;
}

// In one block of threads the entries are scaled by the largest, so that no square underflows.
template <typename T>
__device__ void column_norm(const T* a, long long n, int k, T* partial, unsigned* counter, T* out) {
  __shared__ T shared[THREADS];
  Lane<T> lane(k);
  T scale = 1, sum = 0;
  if (gridDim.x == 1) {
    T top = 0;
    if (lane.active)
      for (long long i = lane.first; i < n; i += lane.step) top = max(top, abs(a[i]));
    top = over_rows<Largest>(top, lane, k, shared);
    if (top > 0 && top - top == 0) scale = top;
  }
  if (lane.active)
    for (long long i = lane.first; i < n; i += lane.step) {
      T b = a[i] / scale;
      sum += b * b;
    }
  if (over_blocks(sum, lane, k, partial, counter, shared) && threadIdx.x < k)
    out[threadIdx.x] = scale * sqrt(sum);
}

// Lengths of a step, how little A bends along it and the most that it did: k of each in out.
template <typename T>
__device__ void cg_length(const T* curvature, const T* rz, const T* square, const T* top, T least,
                          int k, T* out) {
  for (int j = blockIdx.x * blockDim.x + threadIdx.x; j < k; j += gridDim.x * blockDim.x) {
    T bend = curvature[j] / (square[j] > 0 ? square[j] : T(1));
    T size = abs(bend);
    T most = top[j] >= size ? top[j] : size;  // NaN is to be seen
    T share = bend / (most > 0 ? most : T(1));
    out[j] = share <= least ? T(0) : rz[j] / curvature[j];
    out[k + j] = share;
    out[2 * k + j] = most;
  }
}

template <typename T>
__device__ void cg_advance(const T* alpha, const T* p, const T* ap, T* x, T* r, long long n, int k,
                           T* partial, unsigned* counter, T* rr) {
  __shared__ T shared[THREADS];
  Lane<T> lane(k);
  T sum = 0;
  if (lane.active) {
    T a = alpha[lane.column];
    for (long long i = lane.first; i < n; i += lane.step) {
      x[i] += a * p[i];
      T left = r[i] - a * ap[i];
      r[i] = left;
      sum += left * left;
    }
  }
  if (over_blocks(sum, lane, k, partial, counter, shared) && threadIdx.x < k)
    rr[threadIdx.x] = sum;
}

template <typename T>
__device__ void cg_turn(const T* z, T* p, const T* rz, const T* before, const T* square,
                        long long n, int k, T* out) {
  Lane<T> lane(k);
  if (!lane.active) return;
  int j = lane.column;
  T beta = rz[j] / (before[j] > 0 ? before[j] : T(1));
  for (long long i = lane.first; i < n; i += lane.step) p[i] = z[i] + beta * p[i];
  if (blockIdx.x == 0 && lane.row == 0) out[j] = rz[j] + beta * beta * square[j];
}

// y + alpha x and x + alpha y, into y; alpha of one number or of k.
template <typename T>
__device__ void axpy(const T* alpha, const T* x, T* y, long long n, int k) {
  long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
    y[i] += alpha[i % k] * x[i];
}

template <typename T>
__device__ void xpay(const T* x, const T* alpha, T* y, long long n, int k) {
  long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
    y[i] = x[i] + alpha[i % k] * y[i];
}

// Up to eight arrays one after the other.
template <typename T>
__device__ void joined(const T* const (&parts)[8], const int (&sizes)[8], T* out) {
  for (int part = 0, start = 0; part < 8; start += sizes[part], ++part)
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < sizes[part]; i += gridDim.x * blockDim.x)
      out[start + i] = parts[part][i];
}

// ---- entry by entry: of a label y, a prediction t and a constant c -------------------------------

// z or 0, whichever is larger; NaN is to be seen.
template <typename T>
__device__ T positive(T z) {
  return z <= 0 ? T(0) : z;
}

template <typename T>
__device__ T expit(T z) {
  T e = exp(-abs(z));
  return z >= 0 ? 1 / (1 + e) : e / (1 + e);
}

template <typename T>
__device__ T softplus(T z) {
  return positive(z) + log1p(exp(-abs(z)));
}

template <typename T>
__device__ T clipped(T z, T c) {
  return z > c ? c : (z < -c ? -c : z);
}

#define FORMULA(name, expression)                 \
  template <typename T>                           \
  struct name {                                   \
    __device__ static T of(T y, T t, T c) {       \
      return expression;                          \
    }                                             \
  };

FORMULA(expit_of, expit(t))
FORMULA(softplus_of, softplus(t))
FORMULA(step_along, y + c * t)
FORMULA(optimality_step, (t < c ? c : (t > 1 ? T(1) : t)) / (t > 0 ? t : T(1)))
FORMULA(logistic_value, softplus(-(y * t)))
FORMULA(logistic_derivative, -y * expit(-(y * t)))
FORMULA(logistic_curvature, expit(-(y * t)) * (1 - expit(-(y * t))))
FORMULA(squared_value, (t - y) * (t - y) / 2)
FORMULA(huber_value, abs(t - y) <= c ? (t - y) * (t - y) / 2 : c * (abs(t - y) - c / 2))
FORMULA(huber_derivative, clipped(t - y, c))
FORMULA(huber_curvature, abs(t - y) <= c ? T(1) : T(0))
FORMULA(poisson_value, exp(t) - y * t)
FORMULA(poisson_derivative, exp(t) - y)
FORMULA(squared_hinge_value, positive(1 - y * t) * positive(1 - y * t))
FORMULA(squared_hinge_derivative, -2 * y * positive(1 - y * t))
FORMULA(squared_hinge_curvature, y * t < 1 ? T(2) : T(0))

// y has one entry for ``every`` of t.
template <typename T, template <typename> class Formula>
__device__ void entries(const T* y, const T* t, T c, long long n, long long every, T* out) {
  long long step = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step)
    out[i] = Formula<T>::of(y[i / every], t[i], c);
}

#define ENTRIES(name, T, S)                                                             \
  extern "C" __global__ void name##_##S(const T* y, const T* t, T c, long long n,       \
                                        long long every, T* out) {                      \
    entries<T, name>(y, t, c, n, every, out);                                           \
  }

#define ALL(T, S)                                                                                \
  extern "C" __global__ void column_dot_##S(const T* u, const T* v, long long n, int k,          \
                                            T* partial, unsigned* counter, T* out) {             \
    column_dot<T>(u, v, n, k, partial, counter, out);                                            \
  }                                                                                              \
  extern "C" __global__ void absolute_sums_##S(const T* w, const T* v, int weighed, long long n, \
                                               int k, T* partial, unsigned* counter, T* out) {   \
    absolute_sums<T>(w, v, weighed, n, k, partial, counter, out);                                \
  }                                                                                              \
  extern "C" __global__ void joined_##S(                                                         \
      const T* a, const T* b, const T* c, const T* d, const T* e, const T* f, const T* g,        \
      const T* h, int i, int j, int k, int l, int m, int n, int o, int p, T* out) {              \
    const T* const parts[8] = {a, b, c, d, e, f, g, h};                                          \
    const int sizes[8] = {i, j, k, l, m, n, o, p};                                               \
    joined<T>(parts, sizes, out);                                                                \
  }                                                                                              \
  extern "C" __global__ void column_norm_##S(const T* a, long long n, int k, T* partial,         \
                                             unsigned* counter, T* out) {                        \
    column_norm<T>(a, n, k, partial, counter, out);                                              \
  }                                                                                              \
  extern "C" __global__ void cg_length_##S(const T* curvature, const T* rz, const T* square,     \
                                           const T* top, T least, int k, T* out) {               \
    cg_length<T>(curvature, rz, square, top, least, k, out);                                     \
  }                                                                                              \
  extern "C" __global__ void cg_advance_##S(const T* alpha, const T* p, const T* ap, T* x, T* r, \
                                            long long n, int k, T* partial, unsigned* counter,   \
                                            T* rr) {                                             \
    cg_advance<T>(alpha, p, ap, x, r, n, k, partial, counter, rr);                               \
  }                                                                                              \
  extern "C" __global__ void cg_turn_##S(const T* z, T* p, const T* rz, const T* before,         \
                                         const T* square, long long n, int k, T* out) {          \
    cg_turn<T>(z, p, rz, before, square, n, k, out);                                             \
  }                                                                                              \
  extern "C" __global__ void axpy_##S(const T* alpha, const T* x, T* y, long long n, int k) {    \
    axpy<T>(alpha, x, y, n, k);                                                                  \
  }                                                                                              \
  extern "C" __global__ void xpay_##S(const T* x, const T* alpha, T* y, long long n, int k) {    \
    xpay<T>(x, alpha, y, n, k);                                                                  \
  }                                                                                              \
  ENTRIES(expit_of, T, S)                                                                        \
  ENTRIES(softplus_of, T, S)                                                                     \
  ENTRIES(optimality_step, T, S)                                                                 \
  ENTRIES(step_along, T, S)                                                                      \
  ENTRIES(logistic_value, T, S)                                                                  \
  ENTRIES(logistic_derivative, T, S)                                                             \
  ENTRIES(logistic_curvature, T, S)                                                              \
  ENTRIES(squared_value, T, S)                                                                   \
  ENTRIES(huber_value, T, S)                                                                     \
  ENTRIES(huber_derivative, T, S)                                                                \
  ENTRIES(huber_curvature, T, S)                                                                 \
  ENTRIES(poisson_value, T, S)                                                                   \
  ENTRIES(poisson_derivative, T, S)                                                              \
  ENTRIES(squared_hinge_value, T, S)                                                             \
  ENTRIES(squared_hinge_derivative, T, S)                                                        \
  ENTRIES(squared_hinge_curvature, T, S)

ALL(float, f)
ALL(double, d)
