// `similarity` of reidray/neighbours/similarity.py, bit for bit: products of float32 numbers are exact in float64, and
// column c is added to running sum c % 8 in ascending order; the sums are then added as in `joined`.

__device__ double joined(double s0, double s1, double s2, double s3, double s4, double s5, double s6, double s7) {
  return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7));
}

// Products of the columns that are no whole group of eight, one after the other.
__device__ double rest_of(const float* row_D, const float* other_D, int whole, int width) {
  double rest = 0.0;
  for (int c = whole; c < width; ++c) rest += static_cast<double>(row_D[c]) * static_cast<double>(other_D[c]);
  return rest;
}

// Similarities of listed pairs: eight threads a pair, one for each running sum. Any number of threads a block that is a
// multiple of 32.
extern "C" __global__ void similarities_of_pairs(const float* queries_QD, const float* features_ND, int width,
                                                 const long long* rows_P, const long long* columns_P, long long count,
                                                 float* similarities_P) {
  const long long place = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  const long long p = place / 8;
  const int lane = static_cast<int>(place % 8);
  const int whole = width - width % 8;
  const bool real = p < count;
  const float* row_D = queries_QD + (real ? rows_P[p] : 0) * width;
  const float* other_D = features_ND + (real ? columns_P[p] : 0) * width;
  double sum = 0.0;
  if (real) {
    for (int c = lane; c < whole; c += 8) sum += static_cast<double>(row_D[c]) * static_cast<double>(other_D[c]);
  }
  sum += __shfl_down_sync(0xffffffffu, sum, 4, 8);
  sum += __shfl_down_sync(0xffffffffu, sum, 1, 8);
  sum += __shfl_down_sync(0xffffffffu, sum, 2, 8);
  if (real && lane == 0) similarities_P[p] = static_cast<float>(sum + rest_of(row_D, other_D, whole, width));
}

constexpr int kTile = 16, kColumns = 32;

// Similarities of some queries to all features: kTile x kTile threads a block, one pair each; both tiles pass through
// shared memory, kColumns at a time.
extern "C" __global__ void similarities_to_all(const float* queries_QD, const long long* rows_U, long long queries,
                                               const float* features_ND, long long features, int width,
                                               float* similarities_UN) {
  __shared__ double queries_TC[kTile][kColumns + 1];  // one column more: threads of a warp then read different banks
  __shared__ double features_TC[kTile][kColumns + 1];
  const long long tiles = (features + kTile - 1) / kTile;
  const long long first_query = blockIdx.x / tiles * kTile;
  const long long first_feature = blockIdx.x % tiles * kTile;
  const int across = threadIdx.x % kTile, down = threadIdx.x / kTile;
  const int whole = width - width % 8;
  double s0 = 0.0, s1 = 0.0, s2 = 0.0, s3 = 0.0, s4 = 0.0, s5 = 0.0, s6 = 0.0, s7 = 0.0;
  for (int start = 0; start < whole; start += kColumns) {
    for (int t = threadIdx.x; t < kTile * kColumns; t += blockDim.x) {
      const int row = t / kColumns, column = t % kColumns;
      const bool inside = start + column < whole;
      const long long q = first_query + row, n = first_feature + row;
      queries_TC[row][column] = inside && q < queries ? queries_QD[rows_U[q] * width + start + column] : 0.0;
      features_TC[row][column] = inside && n < features ? features_ND[n * width + start + column] : 0.0;
    }
    __syncthreads();
    // Zeros beyond the last whole column change no sum.
    const double* a = queries_TC[down];
    const double* b = features_TC[across];
    for (int c = 0; c < kColumns; c += 8) {
      s0 += a[c] * b[c];
      s1 += a[c + 1] * b[c + 1];
      s2 += a[c + 2] * b[c + 2];
      s3 += a[c + 3] * b[c + 3];
      s4 += a[c + 4] * b[c + 4];
      s5 += a[c + 5] * b[c + 5];
      s6 += a[c + 6] * b[c + 6];
      s7 += a[c + 7] * b[c + 7];
    }
    __syncthreads();
  }
  const long long u = first_query + down, n = first_feature + across;
  if (u < queries && n < features) {
    const double rest = rest_of(queries_QD + rows_U[u] * width, features_ND + n * width, whole, width);
    similarities_UN[u * features + n] = static_cast<float>(joined(s0, s1, s2, s3, s4, s5, s6, s7) + rest);
  }
}
