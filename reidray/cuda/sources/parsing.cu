// Body parts of a batch of images from the inner products of their cells: spatial cascaded clustering, as in
// reidray/parsing. Two kernels: which cells are foreground, then which parts the foreground has.
//
// One warp an image, so that its steps follow each other without waiting for other warps. What is summed or compared in
// float64 is so by the same formulas, in the same order and with the same ties as on the processor, so that the parts
// are equal cell by cell: compile without fused multiply-add.
//
// Names: P cells of a map, row-major; points are the foreground cells of one image, ascending; lane, a thread of the
// warp.

constexpr unsigned ALL = 0xffffffffu;
constexpr int LANES = 32;
constexpr double NONE = 1.7976931348623157e308;  // above every score, cost and distance
constexpr double TIE_SHARE = 1e-13;              // as in reidray/parsing/foreground.py
constexpr double FORBIDDEN = 1000.0;             // this and the next two as in reidray/parsing/division.py
constexpr double SAME_DIRECTION = 1e-6;
constexpr int KMEANS_ITERATIONS = 50;
enum Element { FLOAT32, BFLOAT16, FLOAT16 };
enum Linkage { AVERAGE, COMPLETE, SINGLE };
enum Space { FORBID, OFF, KMEANS, ROWS };

// ---- Reading inner products of any type ----

template <int element>
__device__ float read(const unsigned char* grams, long long at) {
  if (element == FLOAT32) return reinterpret_cast<const float*>(grams)[at];
  const unsigned bits = reinterpret_cast<const unsigned short*>(grams)[at];
  if (element == BFLOAT16) return __uint_as_float(bits << 16);
  const unsigned shifted = (bits & 0x7fffu) << 13;  // an exponent of 5 bits in the place of one of 8: 112 too small
  const bool finite = (bits & 0x7c00u) != 0x7c00u;
  const float size = finite ? __uint_as_float(shifted) * 5192296858534827628530496329220096.0f
                            : __uint_as_float(shifted | 0x7f800000u);
  return bits & 0x8000u ? -size : size;
}

__device__ double inner_product(const unsigned char* grams, int element, long long at) {
  if (element == FLOAT32) return read<FLOAT32>(grams, at);
  return element == BFLOAT16 ? read<BFLOAT16>(grams, at) : read<FLOAT16>(grams, at);
}

template <int element>
__device__ bool any_not_finite(const unsigned char* grams, long long start, int count) {
  bool broken = false;
#pragma unroll 8
  for (int at = threadIdx.x; at < count; at += LANES) {
    broken |= !(fabsf(read<element>(grams, start + at)) <= 3.4028234663852886e38f);
  }
  return broken;
}

// ---- What lanes tell each other ----

// Smallest value of `width` neighbouring lanes, the lowest index among equal ones; all of them get both.
__device__ void lowest(double& value, int& index, int width) {
  for (int step = width / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(ALL, value, step);
    const int other_index = __shfl_xor_sync(ALL, index, step);
    if (other < value || (other == value && other_index < index)) {
      value = other;
      index = other_index;
    }
  }
}

__device__ int sum_of_lanes(int value) {
  for (int step = LANES / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL, value, step);
  return value;
}

// ---- First kernel: the foreground ----

// Shared memory of an image: six doubles and three integers for each of P + 1. What holds for the m smallest distinct
// scores stands at m.
struct Scores {
  double *magnitude, *score, *sorted, *sum, *square, *cost;
  int *place, *count, *best_b;
};

__device__ Scores scores_in(double* shared, int num_cells) {
  Scores s;
  const int n = num_cells + 1;
  s.magnitude = shared;
  s.score = s.magnitude + n;
  s.sorted = s.score + n;
  s.sum = s.sorted + n;
  s.square = s.sum + n;
  s.cost = s.square + n;
  s.place = reinterpret_cast<int*>(s.cost + n);  // of a cell's score among the sorted
  s.count = s.place + n;
  s.best_b = s.count + n;
  return s;
}

// Sum of squared distances to their mean of the distinct scores start..stop-1, repeated ones counted.
__device__ double squares(const Scores& s, int start, int stop) {
  const double count = s.count[stop] - s.count[start];
  const double total = s.sum[stop] - s.sum[start];
  return s.square[stop] - s.square[start] - total * total / count;
}

// Sorts the scores below NONE and sums them up; returns how many distinct ones there are.
__device__ int sort_and_sum(const Scores& s, int num_cells) {
  const int lane = threadIdx.x;
  int scored = 0;
  for (int p = lane; p < num_cells; p += LANES) {
    const double score = s.score[p];
    int place = 0;
    for (int q = 0; q < num_cells; ++q) place += s.score[q] < score || (s.score[q] == score && q < p);
    s.place[p] = place;
    s.sorted[place] = score;
    scored += score < NONE;
  }
  scored = sum_of_lanes(scored);
  __syncwarp();

  const double smallest = s.sorted[0], spread = s.sorted[scored - 1] - smallest;
  for (int p = lane; p < num_cells; p += LANES) {
    s.cost[p] = spread > 0 && s.score[p] < NONE ? (s.score[p] - smallest) / spread / scored : 0.0;
  }
  __syncwarp();
  double mean = 0.0;
  for (int p = 0; p < num_cells; ++p) mean += s.cost[p];
  __syncwarp();
  for (int i = lane; i < scored; i += LANES) s.cost[i] = spread > 0 ? (s.sorted[i] - smallest) / spread - mean : 0.0;
  __syncwarp();

  int m = 0;
  if (lane == 0) {  // one after the other: float64 sums depend on their order
    double sum = 0.0, square = 0.0;
    s.count[0] = 0;
    s.sum[0] = s.square[0] = 0.0;
    for (int i = 0; i < scored; ++i) {
      m += i == 0 || s.sorted[i] != s.sorted[i - 1];
      const double centred = s.cost[i];
      sum += centred;
      square += centred * centred;
      s.count[m] = i + 1;
      s.sum[m] = sum;
      s.square[m] = square;
    }
  }
  m = __shfl_sync(ALL, m, 0);
  __syncwarp();
  return m;
}

// cost[a]: of the best division into three classes of which the first has the a smallest distinct scores. The best end
// b of the second class does not decrease with a: halving the range of a, level by level, bounds b by what is known.
__device__ void costs_of_three_classes(const Scores& s, int m) {
  const int lane = threadIdx.x;
  if (lane == 0) {
    s.best_b[0] = 2;
    s.best_b[m - 1] = m - 1;
  }
  __syncwarp();
  for (int nodes = 1; nodes <= m - 2; nodes *= 2) {
    const int width = nodes < LANES ? LANES / nodes : 1;  // lanes for a node
    for (int node = lane / width; node < nodes; node += LANES / width) {
      int a_low = 1, a_high = m - 2;
      for (int bit = nodes / 2; bit > 0; bit /= 2) {  // down from the root of the halving
        const int middle = (a_low + a_high) / 2;
        if (node & bit) {
          a_low = middle + 1;
        } else {
          a_high = middle - 1;
        }
      }
      const bool there = a_low <= a_high;
      const int a = (a_low + a_high) / 2;
      double best = NONE;
      int best_b = 0;
      if (there) {
        const int b_low = max(s.best_b[a_low - 1], a + 1), b_high = s.best_b[a_high + 1];
        const double lower = squares(s, 0, a);
        best_b = b_low;
        for (int b = b_low + lane % width; b <= b_high; b += width) {
          const double cost = lower + squares(s, a, b) + squares(s, b, m);
          if (cost < best) {
            best = cost;
            best_b = b;
          }
        }
      }
      lowest(best, best_b, width);
      if (there && lane % width == 0) {
        s.cost[a] = best;
        s.best_b[a] = best_b;
      }
    }
    __syncwarp();
  }
}

// How many of the m > num_classes distinct scores are background: the smallest optimal size of the first class.
__device__ int background_of(const Scores& s, int m, int num_classes) {
  const int lane = threadIdx.x, largest = m - num_classes + 1;
  if (num_classes == 2) {
    for (int a = 1 + lane; a <= largest; a += LANES) s.cost[a] = squares(s, 0, a) + squares(s, a, m);
    __syncwarp();
  } else {
    costs_of_three_classes(s, m);
  }
  double least = NONE;
  int at = 0;
  for (int a = 1 + lane; a <= largest; a += LANES) least = s.cost[a] < least ? s.cost[a] : least;
  lowest(least, at, LANES);
  const double limit = least + TIE_SHARE * s.square[m];
  for (int a = 1;; a += LANES) {
    const unsigned within = __ballot_sync(ALL, a + lane <= largest && s.cost[a + lane] <= limit);
    if (within) return a + __ffs(within) - 1;
  }
}

// Fills the foreground cells of an image, ascending, and their number; -1 where the matrix is not finite or its
// diagonal negative. `grams` are the bytes of [images, P, P] inner products.
extern "C" __global__ void __launch_bounds__(32) find_foreground(
    const unsigned char* grams, int element, int num_cells, int width, int num_classes, int log_magnitude,
    double centre_prior, int* cells_BP, long long* foreground_B) {
  extern __shared__ double shared[];
  const int lane = threadIdx.x;
  const long long image = blockIdx.x, start = image * num_cells * num_cells;
  const Scores s = scores_in(shared, num_cells);

  bool broken = element == FLOAT32    ? any_not_finite<FLOAT32>(grams, start, num_cells * num_cells)
                : element == BFLOAT16 ? any_not_finite<BFLOAT16>(grams, start, num_cells * num_cells)
                                      : any_not_finite<FLOAT16>(grams, start, num_cells * num_cells);
  double most = 0.0;
  for (int p = lane; p < num_cells; p += LANES) {
    const double square = inner_product(grams, element, start + static_cast<long long>(p) * (num_cells + 1));
    broken |= square < 0;
    s.magnitude[p] = sqrt(square);
    most = s.magnitude[p] > most ? s.magnitude[p] : most;
  }
  double largest = -most;
  int nobody = 0;
  lowest(largest, nobody, LANES);
  largest = -largest;
  broken = __any_sync(ALL, broken);
  if (broken || largest == 0) {
    if (lane == 0) foreground_B[image] = broken ? -1 : 0;
    return;
  }

  const double scale = centre_prior > 0 ? largest : 1.0;
  for (int p = lane; p < num_cells; p += LANES) {
    double score = s.magnitude[p] / scale;
    if (log_magnitude) score = log(score);
    if (centre_prior > 0) score -= centre_prior * fabs(p % width - (width - 1) / 2.0);
    s.score[p] = log_magnitude && s.magnitude[p] == 0 ? NONE : score;
  }
  __syncwarp();
  const int m = sort_and_sum(s, num_cells);
  const int background = m == 1 ? 0 : m <= num_classes ? 1 : background_of(s, m, num_classes);

  int found = 0;
  for (int first = 0; first < num_cells; first += LANES) {
    const int p = first + lane;
    const bool is_foreground =
        p < num_cells && s.score[p] < NONE && s.magnitude[p] > 0 && s.place[p] >= s.count[background];
    const unsigned votes = __ballot_sync(ALL, is_foreground);
    if (is_foreground) cells_BP[image * num_cells + found + __popc(votes & ((1u << lane) - 1))] = p;
    found += __popc(votes);
  }
  if (lane == 0) foreground_B[image] = found;
}

// ---- Second kernel: the parts ----

// Memory of an image with n points: seven integers and a double for each, the distances, and P bytes. Later steps take
// the arrays of earlier ones for other things: see where they are used.
struct Points {
  int n;
  double *distances, *farness, *height;  // distances: lower triangle with the diagonal; farness: n x clusters
  int *row, *column;                     // of its cell
  int *size, *chain, *left, *right, *up;
  unsigned char* far_P;
};

__device__ int at(int i, int j) { return i > j ? i * (i + 1) / 2 + j : j * (j + 1) / 2 + i; }

__device__ bool are_far(const Points& w, int i, int j, int width) {
  return w.far_P[abs(w.row[i] - w.row[j]) * width + abs(w.column[i] - w.column[j])];
}

// The next pair (i, j), j <= i, of this lane when pairs are dealt to the lanes in the order of the triangle.
__device__ void next_pair(int& i, int& j) {
  j += LANES;
  while (j > i) {
    j -= i + 1;
    ++i;
  }
}

__device__ void first_pair(int& i, int& j) {
  i = 0;
  j = static_cast<int>(threadIdx.x) - LANES;
  next_pair(i, j);
}

// Cosines between the points; `height` has their magnitudes.
__device__ void cosines_of(const Points& w, const unsigned char* grams, int element, long long start, int num_cells,
                           int width) {
  int i, j;
  for (first_pair(i, j); i < w.n; next_pair(i, j)) {
    const long long row = w.row[i] * width + w.column[i], column = w.row[j] * width + w.column[j];
    const double product = inner_product(grams, element, start + row * num_cells + column);
    const double cosine = product / w.height[i] / w.height[j];
    w.distances[at(i, j)] = cosine < -1.0 ? -1.0 : cosine > 1.0 ? 1.0 : cosine;
  }
  __syncwarp();
}

// |x - y|^2 of unit vectors.
__device__ double square_of_chord(double cosine) {
  const double square = 2.0 - 2.0 * cosine;
  return square > 0.0 ? square : 0.0;
}

// Cosines become the corrected distances of eq. 2.
__device__ void to_distances(const Points& w, bool forbid, int width) {
  double largest = 0.0;
  int i, j;
  for (first_pair(i, j); i < w.n; next_pair(i, j)) {
    if (i == j) continue;
    const double distance = sqrt(square_of_chord(w.distances[at(i, j)]));
    w.distances[at(i, j)] = distance;
    largest = distance > largest ? distance : largest;
  }
  int nobody = 0;
  largest = -largest;
  lowest(largest, nobody, LANES);
  const double forbidden = FORBIDDEN * (largest < 0 ? -largest : 1.0);
  if (forbid) {
    for (first_pair(i, j); i < w.n; next_pair(i, j)) {
      if (i != j && are_far(w, i, j, width)) w.distances[at(i, j)] = forbidden;
    }
  }
  __syncwarp();
}

// All n - 1 merges by nearest-neighbour chains: left, right and height; the right cluster lives on.
__device__ void merge_all(const Points& w, int linkage) {
  const int lane = threadIdx.x;
  for (int i = lane; i < w.n; i += LANES) w.size[i] = 1;
  __syncwarp();
  int length = 0, first_alive = 0;
  for (int merge = 0; merge < w.n - 1; ++merge) {
    if (length == 0) {
      while (w.size[first_alive] == 0) ++first_alive;
      if (lane == 0) w.chain[0] = first_alive;
      length = 1;
      __syncwarp();
    }
    int x, y;
    double nearest;
    while (true) {  // until two clusters are each other's nearest; the previous one of the chain first, then the lowest
      x = w.chain[length - 1];
      const int previous = length > 1 ? w.chain[length - 2] : -1;
      nearest = NONE;
      y = w.n;
      for (int i = lane; i < w.n; i += LANES) {
        if (i == x || w.size[i] == 0) continue;
        const double distance = w.distances[at(x, i)];
        if (distance < nearest) {
          nearest = distance;
          y = i;
        }
      }
      lowest(nearest, y, LANES);
      if (previous >= 0 && w.distances[at(x, previous)] == nearest) {
        y = previous;
        break;
      }
      if (lane == 0) w.chain[length] = y;
      ++length;
      __syncwarp();
    }
    length -= 2;

    const int left = min(x, y), right = max(x, y), size_left = w.size[left], size_right = w.size[right];
    __syncwarp();
    for (int i = lane; i < w.n; i += LANES) {
      if (i == left || i == right || w.size[i] == 0) continue;
      const double to_left = w.distances[at(left, i)], to_right = w.distances[at(right, i)];
      double joined;
      if (linkage == COMPLETE) {
        joined = to_left > to_right ? to_left : to_right;
      } else if (linkage == SINGLE) {
        joined = to_left < to_right ? to_left : to_right;
      } else {
        joined = (size_left * to_left + size_right * to_right) / (size_left + size_right);
      }
      w.distances[at(right, i)] = joined;
    }
    __syncwarp();
    if (lane == 0) {
      w.left[merge] = left;
      w.right[merge] = right;
      w.height[merge] = nearest;
      w.size[left] = 0;
      w.size[right] = size_left + size_right;
    }
    __syncwarp();
  }
}

// The clusters after the n - num_clusters lowest merges, equal heights in the order found: `chain` gets each point's
// cluster, known by one of its points. Every point is merged away at most once, so that the merges are a forest.
__device__ void cut(const Points& w, int num_clusters) {
  const int lane = threadIdx.x;
  for (int i = lane; i < w.n; i += LANES) w.up[i] = i;
  __syncwarp();
  for (int merge = lane; merge < w.n - 1; merge += LANES) {
    const double height = w.height[merge];
    int lower = 0;
    for (int other = 0; other < w.n - 1; ++other) {
      lower += w.height[other] < height || (w.height[other] == height && other < merge);
    }
    if (lower < w.n - num_clusters) w.up[w.left[merge]] = w.right[merge];
  }
  __syncwarp();
  for (int i = lane; i < w.n; i += LANES) {
    int root = i;
    while (w.up[root] != root) root = w.up[root];
    w.chain[i] = root;
  }
  __syncwarp();
}

// Squared distances to the means of the clusters: 1 - 2 mean cos(x, member) + mean cos(member, member'); an empty
// cluster is infinitely far. `height` gets what is within a cluster.
__device__ void distances_to_means(const Points& w, int clusters) {
  const int lane = threadIdx.x;
  for (int i = lane; i < w.n; i += LANES) {
    double* farness = w.farness + i * clusters;
    for (int k = 0; k < clusters; ++k) farness[k] = 0.0;
    for (int j = 0; j < w.n; ++j) farness[w.chain[j]] += w.distances[at(i, j)];
  }
  __syncwarp();
  for (int k = lane; k < clusters; k += LANES) {
    double within = 0.0;
    for (int i = 0; i < w.n; ++i) {
      if (w.chain[i] == k) within += w.farness[i * clusters + k];
    }
    w.height[k] = within;
  }
  __syncwarp();
  for (int i = lane; i < w.n; i += LANES) {
    for (int k = 0; k < clusters; ++k) {
      double& farness = w.farness[i * clusters + k];
      const int size = w.size[k];
      farness = size == 0 ? NONE : 1.0 - 2.0 * farness / size + w.height[k] / (static_cast<long long>(size) * size);
    }
  }
  __syncwarp();
}

// Gives every empty cluster the point farthest from its own mean; returns whether there was one. For a single lane.
__device__ bool fill_empty(const Points& w, int clusters, int found) {
  bool changed = false;
  for (int k = 0; k < found; ++k) {
    if (w.size[k] > 0) continue;
    int farthest = -1;
    double most = -NONE;
    for (int i = 0; i < w.n; ++i) {
      const double farness = w.farness[i * clusters + w.chain[i]];
      if (w.size[w.chain[i]] > 1 && farness > most) {
        farthest = i;
        most = farness;
      }
    }
    if (farthest < 0) continue;
    --w.size[w.chain[farthest]];
    w.chain[farthest] = k;
    w.size[k] = 1;
    changed = true;
  }
  return changed;
}

// k-means of the points at unit length from their cosines, from the point of largest magnitude (in `height`) by
// farthest points: `chain` gets each point's cluster.
__device__ void unit_kmeans(const Points& w, int clusters) {
  const int lane = threadIdx.x;
  double most = NONE;
  int centre = w.n;
  for (int i = lane; i < w.n; i += LANES) {
    if (-w.height[i] < most) {
      most = -w.height[i];
      centre = i;
    }
    w.chain[i] = -1;
  }
  lowest(most, centre, LANES);
  __syncwarp();
  for (int i = lane; i < w.n; i += LANES) w.height[i] = NONE;  // from here: squared distance to the nearest centre
  int found = 0;
  while (found < clusters) {
    most = NONE;
    int next = w.n;
    for (int i = lane; i < w.n; i += LANES) {
      const double farness = i == centre ? 0.0 : square_of_chord(w.distances[at(i, centre)]);
      w.farness[i * clusters + found] = farness;
      if (farness < w.height[i]) w.height[i] = farness;
      if (-w.height[i] < most) {
        most = -w.height[i];
        next = i;
      }
    }
    lowest(most, next, LANES);
    centre = next;
    ++found;
    if (-most <= SAME_DIRECTION) break;
  }
  for (int iteration = 0; iteration < KMEANS_ITERATIONS; ++iteration) {
    bool changed = false;
    for (int k = lane; k < found; k += LANES) w.size[k] = 0;
    __syncwarp();
    for (int i = lane; i < w.n; i += LANES) {
      int best = 0;
      for (int k = 1; k < found; ++k) {
        if (w.farness[i * clusters + k] < w.farness[i * clusters + best]) best = k;
      }
      changed |= best != w.chain[i];
      w.chain[i] = best;
      atomicAdd(&w.size[best], 1);
    }
    __syncwarp();
    if (lane == 0) changed |= fill_empty(w, clusters, found);
    __syncwarp();
    if (!__any_sync(ALL, changed)) break;
    distances_to_means(w, clusters);
  }
}

// Parts are clusters from top to bottom by mean row, the one with the lowest cell first where they are level. Takes
// `left` for the lowest cell, `right` for the sum of rows, `size` for the count, `height` for the mean row, `up` for
// the part of a cluster.
__device__ void number_parts(const Points& w) {
  const int lane = threadIdx.x;
  for (int k = lane; k < w.n; k += LANES) {
    w.left[k] = w.n;
    w.right[k] = w.size[k] = 0;
  }
  __syncwarp();
  for (int i = lane; i < w.n; i += LANES) {
    atomicMin(&w.left[w.chain[i]], i);
    atomicAdd(&w.right[w.chain[i]], w.row[i]);
    atomicAdd(&w.size[w.chain[i]], 1);
  }
  __syncwarp();
  for (int k = lane; k < w.n; k += LANES) {
    w.height[k] = w.size[k] > 0 ? w.right[k] / static_cast<double>(w.size[k]) : NONE;
  }
  __syncwarp();
  for (int k = lane; k < w.n; k += LANES) {
    if (w.size[k] == 0) continue;
    int above = 0;
    for (int other = 0; other < w.n; ++other) {
      above += w.height[other] < w.height[k] || (w.height[other] == w.height[k] && w.left[other] < w.left[k]);
    }
    w.up[k] = above;
  }
  __syncwarp();
}

// Share of the pairs of points within a part that are far.
__device__ double far_share_of(const Points& w, int width) {
  int pairs = 0, far = 0, i, j;
  for (first_pair(i, j); i < w.n; next_pair(i, j)) {
    if (i == j || w.chain[i] != w.chain[j]) continue;
    ++pairs;
    far += are_far(w, i, j, width);
  }
  pairs = sum_of_lanes(pairs);
  far = sum_of_lanes(far);
  return pairs > 0 ? far / static_cast<double>(pairs) : 0.0;
}

// Fills parts and far shares of the given images, one after the other where they are more than the blocks. None of them
// has more than `most_points` points. Distances lie in shared memory or, with scratch_doubles > 0, in so many of
// `scratch` for each block. far_P: whether cells so many rows and columns apart (row-major) are far.
extern "C" __global__ void __launch_bounds__(32) divide_foreground(
    const unsigned char* grams, int element, const long long* images_N, int num_images, const unsigned char* far_P,
    int num_cells, int width, int num_parts, int linkage, int space, const int* cells_BP, const long long* foreground_B,
    int most_points, double* scratch, long long scratch_doubles, long long* parts_BP, double* far_share_B) {
  extern __shared__ double shared[];
  const int lane = threadIdx.x, most_clusters = min(num_parts - 1, most_points);
  const int triangle = most_points * (most_points + 1) / 2;
  const int doubles = space == KMEANS ? triangle + most_points * most_clusters : triangle;
  Points w;
  w.height = shared;
  w.distances = scratch_doubles > 0 ? scratch + blockIdx.x * scratch_doubles : shared + most_points;
  w.farness = w.distances + triangle;
  w.row = reinterpret_cast<int*>(shared + most_points + (scratch_doubles > 0 ? 0 : doubles));
  w.column = w.row + most_points;
  w.size = w.column + most_points;
  w.chain = w.size + most_points;
  w.left = w.chain + most_points;
  w.right = w.left + most_points;
  w.up = w.right + most_points;
  w.far_P = reinterpret_cast<unsigned char*>(w.up + most_points);
  for (int p = lane; p < num_cells; p += LANES) w.far_P[p] = far_P[p];

  for (int turn = blockIdx.x; turn < num_images; turn += gridDim.x) {
    const long long image = images_N[turn], start = image * num_cells * num_cells;
    w.n = static_cast<int>(foreground_B[image]);
    const int clusters = min(num_parts - 1, w.n);
    for (int p = lane; p < num_cells; p += LANES) parts_BP[image * num_cells + p] = num_parts - 1;
    for (int i = lane; i < w.n; i += LANES) {
      const long long p = cells_BP[image * num_cells + i];
      w.row[i] = static_cast<int>(p) / width;
      w.column[i] = static_cast<int>(p) % width;
      w.height[i] = sqrt(inner_product(grams, element, start + p * (num_cells + 1)));
      w.chain[i] = i;
    }
    if (space == ROWS) {  // whatever the cells look like: a part keeps its number where others are empty
      for (int i = lane; i < w.n; i += LANES) w.chain[i] = w.row[i] * (num_parts - 1) / (num_cells / width);
    }
    __syncwarp();
    if (space == KMEANS) {
      cosines_of(w, grams, element, start, num_cells, width);
      if (w.n > 0) unit_kmeans(w, clusters);
    } else if (space != ROWS && w.n > clusters) {
      cosines_of(w, grams, element, start, num_cells, width);
      to_distances(w, space == FORBID, width);
      merge_all(w, linkage);
      cut(w, clusters);
    }
    if (space != ROWS) number_parts(w);
    const double far_share = far_share_of(w, width);
    if (lane == 0) far_share_B[image] = far_share;
    for (int i = lane; i < w.n; i += LANES) {
      const int part = space == ROWS ? w.chain[i] : w.up[w.chain[i]];
      parts_BP[image * num_cells + w.row[i] * width + w.column[i]] = part;
    }
    __syncwarp();
  }
}
