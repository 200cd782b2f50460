// Rows too short to fill a vector, several of them side by side: a block holds element j of row r at
// [j * kColumnBlock + r], so that what is a fold along each row becomes one vector operation a column.
#pragma once

#include "backends/cpu/rows.h"

namespace tenon::cpu {

// Up to this length the transposition costs less than half-empty vectors do.
inline constexpr int64_t kShortRow = 16;

struct alignas(64) RowBlock {
  float at[kShortRow * kColumnBlock];

  // Rows [first, first + count) of a tensor; zeros stand in for rows up to kColumnBlock.
  void read(const Rows& rows, const void* base, int64_t first, size_t count) {
    const size_t n = rows.n();
    for (size_t j = 0; count < kColumnBlock && j < n; ++j)
      std::fill_n(at + j * kColumnBlock + count, kColumnBlock - count, 0.0f);
    for (size_t r = 0; r < count; ++r)
      for (size_t j = 0; j < n; ++j)
        at[j * kColumnBlock + r] = read_element(
            rows.dtype, base, (first + static_cast<int64_t>(r)) * rows.length + static_cast<int64_t>(j));
  }
  void write(const Rows& rows, void* base, int64_t first, size_t count) const {
    const size_t n = rows.n();
    for (size_t r = 0; r < count; ++r)
      for (size_t j = 0; j < n; ++j)
        write_element(rows.dtype, base,
                      (first + static_cast<int64_t>(r)) * rows.length + static_cast<int64_t>(j),
                      at[j * kColumnBlock + r]);
  }
};

// One value a row of a block.
struct alignas(64) BlockColumn {
  float at[kColumnBlock];
};

// Calls f(first row, number of rows) for the blocks of [begin, end).
template <class F>
void each_row_block(int64_t begin, int64_t end, F&& f) {
  constexpr auto most = static_cast<int64_t>(kColumnBlock);
  for (int64_t r = begin; r < end; r += most) f(r, static_cast<size_t>(std::min(most, end - r)));
}

}  // namespace tenon::cpu
