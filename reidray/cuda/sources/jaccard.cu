// The k-reciprocal Jaccard distance of reidray/neighbours/jaccard.py: the same sets, and the same sums in the same order.
//
// Rows of unknown length are written by kernels that run twice: first only counting, then filling between the ends that
// the counts gave. A block works on one row at a time; its list of columns has room for a power of two, in shared memory
// or, where it is longer, in its part of `scratch`. Nothing depends on the number of blocks or on the order of threads.

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kLast = 0x7fffffff;

__device__ int* list_of_block(int* shared_list, int* scratch, int room, int in_shared) {
  return in_shared ? shared_list : scratch + static_cast<long long>(blockIdx.x) * room;
}

__device__ bool holds(const int* list, int size, int index) {
  for (int t = 0; t < size; ++t) {
    if (list[t] == index) return true;
  }
  return false;
}

// Sorts a list by its block (K. Batcher's bitonic network); there is room for the next power of two.
__device__ void sort_ascending(int* list, int size) {
  int room = 1;
  while (room < size) room *= 2;
  for (int t = size + threadIdx.x; t < room; t += blockDim.x) list[t] = kLast;
  __syncthreads();
  for (int run = 2; run <= room; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int t = threadIdx.x; t < room; t += blockDim.x) {
        const int other = t ^ step;
        if (other < t) continue;
        const int a = list[t], b = list[other];
        if ((a > b) == ((t & run) == 0)) {
          list[t] = b;
          list[other] = a;
        }
      }
      __syncthreads();
    }
  }
}

// How many different numbers stand in an ascending list; if there is an `out`, they are written there.
__device__ int distinct(const int* list, int size, int* out) {
  __shared__ int of_warp[32];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  int before = 0;
  for (int start = 0; start < size; start += blockDim.x) {
    const int t = start + threadIdx.x;
    const bool first = t < size && (t == 0 || list[t] != list[t - 1]);
    const unsigned votes = __ballot_sync(kAllLanes, first);
    if (lane == 0) of_warp[warp] = __popc(votes);
    __syncthreads();
    int place = before + __popc(votes & ((1u << lane) - 1u));
    for (int w = 0; w < warp; ++w) place += of_warp[w];
    if (first && out) out[place] = list[t];
    for (int w = 0; w < warps; ++w) before += of_warp[w];
    __syncthreads();
  }
  return before;
}

// Eq. 2: those of the first `columns` neighbours that have the image among their own first `columns`; one warp a block,
// one image each.
extern "C" __global__ void reciprocal(const int* neighbours_NK, int k, int columns, int* members_NK, int* sizes_N) {
  const long long i = blockIdx.x;
  const int lane = threadIdx.x;
  int size = 0;
  for (int start = 0; start < columns; start += 32) {
    const int a = start + lane;
    const int j = a < columns ? neighbours_NK[i * k + a] : 0;
    const bool mutual = a < columns && holds(neighbours_NK + static_cast<long long>(j) * k, columns, i);
    const unsigned votes = __ballot_sync(kAllLanes, mutual);
    if (mutual) members_NK[i * columns + size + __popc(votes & ((1u << lane) - 1u))] = j;
    size += __popc(votes);
  }
  if (lane == 0) sizes_N[i] = size;
}

// Eq. 3: adds the half list of each member that has more than two thirds of it among the members; a warp a member.
extern "C" __global__ void expand(const int* members_NK, const int* sizes_N, int k, const int* half_NK,
                                  const int* half_sizes_N, int half, int count, int filling, long long* counts_N,
                                  const long long* ends_N1, int* columns_E, int* scratch, int room, int in_shared) {
  extern __shared__ int shared_list[];
  __shared__ int size;
  int* list = list_of_block(shared_list, scratch, room, in_shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (long long i = blockIdx.x; i < count; i += gridDim.x) {
    const int* members = members_NK + i * k;
    const int members_size = sizes_N[i];
    for (int a = threadIdx.x; a < members_size; a += blockDim.x) list[a] = members[a];
    if (threadIdx.x == 0) size = members_size;
    __syncthreads();
    for (int a = warp; a < members_size; a += warps) {
      const int* added = half_NK + static_cast<long long>(members[a]) * half;
      const int added_size = half_sizes_N[members[a]];
      int common = 0;
      for (int start = 0; start < added_size; start += 32) {
        const bool shared = start + lane < added_size && holds(members, members_size, added[start + lane]);
        common += __popc(__ballot_sync(kAllLanes, shared));
      }
      if (3 * common <= 2 * added_size) continue;
      int place = lane == 0 ? atomicAdd(&size, added_size) : 0;
      place = __shfl_sync(kAllLanes, place, 0);
      for (int b = lane; b < added_size; b += 32) list[place + b] = added[b];
    }
    __syncthreads();
    sort_ascending(list, size);
    const int found = distinct(list, size, filling ? columns_E + ends_N1[i] : nullptr);
    if (!filling && threadIdx.x == 0) counts_N[i] = found;
    __syncthreads();
  }
}

// The similarity of each stored pair, where one of the two neighbour lists has it; NaN elsewhere. One thread a pair.
extern "C" __global__ void look_up(const int* neighbours_NK, const float* known_NK, int k, const int* rows_E,
                                   const int* columns_E, long long entries, float* similarities_E) {
  const long long e = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e >= entries) return;
  const long long pair[2] = {rows_E[e], columns_E[e]};
  float value = __int_as_float(0x7fc00000);
  for (int side = 1; side >= 0; --side) {  // the row's own list has the last word
    for (int b = k - 1; b >= 0; --b) {
      if (neighbours_NK[pair[side] * k + b] == pair[1 - side]) value = known_NK[pair[side] * k + b];
    }
  }
  similarities_E[e] = value;
}

// Eq. 7: softmax of -|x_i - x_j|^2 = -(2 - 2 s) over the columns of each row, in place; float64 inside, summed by
// ascending column. One thread a row.
extern "C" __global__ void weigh(const long long* ends_N1, int count, float* weights_E) {
  const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const long long start = ends_N1[i], stop = ends_N1[i + 1];
  if (start == stop) return;
  float closest = weights_E[start];
  for (long long e = start; e < stop; ++e) closest = max(closest, weights_E[e]);
  double total = 0.0;
  for (long long e = start; e < stop; ++e) {
    total += exp(2.0 * (static_cast<double>(weights_E[e]) - static_cast<double>(closest)));
  }
  for (long long e = start; e < stop; ++e) {
    const double power = exp(2.0 * (static_cast<double>(weights_E[e]) - static_cast<double>(closest)));
    weights_E[e] = static_cast<float>(power / total);
  }
}

// Where `column` stands among ascending columns, or -1.
__device__ long long place_of(const int* columns_E, long long start, long long stop, int column) {
  while (start < stop) {
    const long long middle = (start + stop) / 2;
    if (columns_E[middle] == column) return middle;
    if (columns_E[middle] < column) {
      start = middle + 1;
    } else {
      stop = middle;
    }
  }
  return -1;
}

// Eq. 11: the mean of the rows of the nearest images, summed in float32 from the nearest on.
extern "C" __global__ void average(const int* neighbours_NK, int k, int rows, const long long* ends_N1,
                                   const int* columns_E, const float* weights_E, int count, int filling,
                                   long long* counts_N, const long long* new_ends_N1, int* new_columns_E,
                                   float* new_weights_E, int* scratch, int room, int in_shared) {
  extern __shared__ int shared_list[];
  int* list = list_of_block(shared_list, scratch, room, in_shared);
  for (long long i = blockIdx.x; i < count; i += gridDim.x) {
    const int* nearest = neighbours_NK + i * k;
    int size = 0;
    for (int a = 0; a < rows; ++a) {
      const long long start = ends_N1[nearest[a]];
      const int here = static_cast<int>(ends_N1[nearest[a] + 1] - start);
      for (int t = threadIdx.x; t < here; t += blockDim.x) list[size + t] = columns_E[start + t];
      size += here;
    }
    __syncthreads();
    sort_ascending(list, size);
    const long long start = filling ? new_ends_N1[i] : 0;
    const int found = distinct(list, size, filling ? new_columns_E + start : nullptr);
    if (!filling && threadIdx.x == 0) counts_N[i] = found;
    for (int t = threadIdx.x; filling && t < found; t += blockDim.x) {
      const int column = new_columns_E[start + t];
      float total = 0.0f;
      for (int a = 0; a < rows; ++a) {
        const long long e = place_of(columns_E, ends_N1[nearest[a]], ends_N1[nearest[a] + 1], column);
        if (e >= 0) total += weights_E[e];
      }
      new_weights_E[start + t] = total / static_cast<float>(rows);
    }
    __syncthreads();
  }
}

// Eq. 10 for each image and all images that hold one of its columns: d = 1 - s / (2 - s), s summed by ascending column.
// The holders of one column are different images, so that threads add to different sums; a barrier keeps the columns in
// order. Each block owns `count` sums in `overlaps`, all 0 before and after, and a list in `scratch`.
extern "C" __global__ void compare(const long long* ends_N1, const int* columns_E, const float* weights_E,
                                   const long long* holder_ends_N1, const int* holders_E,
                                   const float* holder_weights_E, int count, float furthest, int filling,
                                   long long* counts_N, const long long* rows_N1, int* indices, float* distances,
                                   float* overlaps, int* scratch, int room) {
  __shared__ int met, kept;
  int* list = scratch + static_cast<long long>(blockIdx.x) * room;
  float* overlap_N = overlaps + static_cast<long long>(blockIdx.x) * count;
  for (long long i = blockIdx.x; i < count; i += gridDim.x) {
    if (threadIdx.x == 0) met = kept = 0;
    __syncthreads();
    for (long long e = ends_N1[i]; e < ends_N1[i + 1]; ++e) {
      const int column = columns_E[e];
      const float weight = weights_E[e];
      const long long stop = holder_ends_N1[column + 1];
      for (long long h = holder_ends_N1[column] + threadIdx.x; h < stop; h += blockDim.x) {
        const int j = holders_E[h];
        const float before = overlap_N[j];  // weights are positive: 0 means not met yet
        if (before == 0.0f && j != i) list[atomicAdd(&met, 1)] = j;
        overlap_N[j] = before + min(weight, holder_weights_E[h]);
      }
      __syncthreads();
    }
    const int size = met;
    for (int start = 0; start < size; start += blockDim.x) {
      const int t = start + threadIdx.x;
      const int j = t < size ? list[t] : 0;
      __syncthreads();  // what is kept moves forward in the list, over places that have been read
      if (t < size) {
        const float overlap = overlap_N[j];
        const float distance = max(0.0f, 1.0f - overlap / (2.0f - overlap));
        const bool near = distance < 1.0f && distance <= furthest;
        overlap_N[j] = near ? distance : 0.0f;
        if (near) list[atomicAdd(&kept, 1)] = j;
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      list[kept++] = static_cast<int>(i);
      overlap_N[i] = 0.0f;
      if (!filling) counts_N[i] = kept;
    }
    __syncthreads();
    if (filling) sort_ascending(list, kept);
    for (int t = threadIdx.x; t < kept; t += blockDim.x) {
      const int j = list[t];
      if (filling) {
        indices[rows_N1[i] + t] = j;
        distances[rows_N1[i] + t] = overlap_N[j];
      }
      overlap_N[j] = 0.0f;
    }
    __syncthreads();
  }
}
