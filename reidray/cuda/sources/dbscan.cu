// DBSCAN on sparse rows that are symmetric: core points, their connected components, and whom a border point joins.
// One block a row; its threads share the row's entries.

// Whether each row has enough neighbours; it counts as one of its own, unless its distance to itself is stored.
extern "C" __global__ void core_points(const long long* ends_N1, const int* columns_E, const float* distances_E,
                                       float eps, long long min_samples, int* core_N) {
  __shared__ unsigned long long neighbours;
  const long long i = blockIdx.x;
  if (threadIdx.x == 0) neighbours = 0;
  __syncthreads();
  unsigned long long mine = threadIdx.x == 0 ? 1 : 0;
  bool stored = false;
  for (long long e = ends_N1[i] + threadIdx.x; e < ends_N1[i + 1]; e += blockDim.x) {
    if (columns_E[e] == i) stored = true;
    if (distances_E[e] <= eps) ++mine;
  }
  atomicAdd(&neighbours, mine);
  if (stored) atomicAdd(&neighbours, ~0ull);  // adds -1
  __syncthreads();
  if (threadIdx.x == 0) core_N[i] = static_cast<long long>(neighbours) >= min_samples;
}

// The root of a tree of parents. A parent has a lower index than its child, and is replaced by its own parent on the
// way (path halving): what another thread reads meanwhile is an ancestor, old or new.
__device__ int root_of(volatile int* parents_N, int i) {
  for (;;) {
    const int parent = parents_N[i];
    if (parent == i) return i;
    const int above = parents_N[parent];
    if (above != parent) parents_N[i] = above;
    i = above;
  }
}

// Joins the trees of core points within eps: the higher root is hung under the lower one, so that in the end the root of
// a component is its lowest index, whatever the order of threads.
extern "C" __global__ void join(const long long* ends_N1, const int* columns_E, const float* distances_E, float eps,
                                const int* core_N, int* parents_N) {
  const long long i = blockIdx.x;
  if (!core_N[i]) return;
  for (long long e = ends_N1[i] + threadIdx.x; e < ends_N1[i + 1]; e += blockDim.x) {
    const int j = columns_E[e];
    if (j >= i || !core_N[j] || !(distances_E[e] <= eps)) continue;
    int high = root_of(parents_N, static_cast<int>(i)), low = root_of(parents_N, j);
    while (high != low) {
      if (high < low) {
        const int swapped = high;
        high = low;
        low = swapped;
      }
      const int found = atomicCAS(&parents_N[high], high, low);
      if (found == high) break;
      high = root_of(parents_N, found);
      low = root_of(parents_N, low);
    }
  }
}

// Every core point hangs directly under its root.
extern "C" __global__ void flatten(const int* core_N, int count, int* parents_N) {
  const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count && core_N[i]) parents_N[i] = root_of(parents_N, static_cast<int>(i));
}

// The lowest cluster among the core points next to a border point; -1 where there is none. Core points keep their own.
extern "C" __global__ void join_border(const long long* ends_N1, const int* columns_E, const float* distances_E,
                                       float eps, const int* core_N, const int* clusters_N, long long* labels_N) {
  const int kNone = 0x7fffffff;
  __shared__ int lowest;
  const long long i = blockIdx.x;
  if (threadIdx.x == 0) lowest = core_N[i] ? clusters_N[i] : kNone;
  __syncthreads();
  if (!core_N[i]) {
    for (long long e = ends_N1[i] + threadIdx.x; e < ends_N1[i + 1]; e += blockDim.x) {
      if (distances_E[e] <= eps && core_N[columns_E[e]]) atomicMin(&lowest, clusters_N[columns_E[e]]);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) labels_N[i] = lowest == kNone ? -1 : lowest;
}
