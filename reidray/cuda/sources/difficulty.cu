// How well two lists of neighbours agree: eq. 7 of SCWM, one thread an image.

// Whether a list names `index`; lists are short, and a thread reads its own again and again from the nearest cache.
__device__ bool holds(const long long* list, int size, long long index) {
  for (int k = 0; k < size; ++k) {
    if (list[k] == index) return true;
  }
  return false;
}

// A member is what stands in the list, not for the first time a second time; padding and the image itself are none.
__device__ bool is_member(const long long* list, int place, long long itself) {
  const long long index = list[place];
  return index >= 0 && index != itself && !holds(list, place, index);
}

extern "C" __global__ void difficulty(const long long* global_NK, int global_columns, const long long* part_NK,
                                      int part_columns, long long count, float* alpha_N) {
  const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const long long* of_global = global_NK + i * global_columns;
  const long long* of_part = part_NK + i * part_columns;
  int common = 0, together = 0;
  for (int k = 0; k < global_columns; ++k) {
    if (!is_member(of_global, k, i)) continue;
    ++together;
    if (holds(of_part, part_columns, of_global[k])) ++common;
  }
  for (int k = 0; k < part_columns; ++k) {
    if (is_member(of_part, k, i)) ++together;
  }
  together -= common;
  // The quotient of two small integers in float64, rounded to float32, as the processor has it.
  alpha_N[i] = together > 0 ? static_cast<float>(static_cast<double>(common) / together) : 0.0f;
}
