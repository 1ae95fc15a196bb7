// Token compression on packed batches: which rows are averaged, what the shorter batch looks like.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "terse/layers/token_compression.h"
#include "terse/ops/reference.h"

namespace {

using terse::Batch;
using terse::Compression;
using terse::RowSpan;
using terse::Segments;

Batch one_row(std::int32_t length) {
  Batch batch;
  batch.cu_seqlens = {0, length};
  batch.positions.resize(static_cast<std::size_t>(length));
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  return batch;
}

// The means of the spans over rows of width 1.
std::vector<double> averaged(const std::vector<double>& values, const std::vector<RowSpan>& spans) {
  const terse::Backend& backend = terse::reference::backend(terse::DType::f64);
  terse::Context context;
  context.backend = &backend;
  std::vector<double> rows = values;
  std::vector<double> out(spans.size());
  const terse::Residual from{rows.data(), static_cast<std::int64_t>(rows.size()), 1};
  const terse::Residual to{out.data(), static_cast<std::int64_t>(out.size()), 1};
  backend.mean_rows(context, from, spans, to);
  return out;
}

Compression compressed(const Batch& batch, std::span<const Segments> segments, std::int32_t ratio) {
  Compression out;
  terse::compress(batch, segments, ratio, &out);
  return out;
}

std::vector<double> numbered(std::size_t count) {
  std::vector<double> values(count);
  std::iota(values.begin(), values.end(), 0.0);
  return values;
}

}  // namespace

TEST_CASE("the worked example: 4 query, 7 passage, 3 prompt rows by 2, twice") {
  const std::vector<Segments> segments = {{4, 3}};
  const Compression first = compressed(one_row(14), segments, 2);
  const std::vector<double> once = averaged(numbered(14), first.spans);
  CHECK(once == std::vector<double>{0, 1, 2, 3, 4.5, 6.5, 8.5, 10, 11, 12, 13});
  CHECK(first.batch.cu_seqlens == std::vector<std::int32_t>{0, 11});
  CHECK(first.batch.positions == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10});

  const Compression second = compressed(first.batch, segments, 2);
  CHECK(averaged(once, second.spans) == std::vector<double>{0, 1, 2, 3, 5.5, 9.25, 11, 12, 13});
  CHECK(second.batch.positions == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 7, 8});
}

TEST_CASE("a short last run is divided by its own number of rows") {
  const std::vector<Segments> segments = {{4, 3}};
  CHECK(averaged(numbered(14), compressed(one_row(14), segments, 4).spans) ==
        std::vector<double>{0, 1, 2, 3, 5.5, 9, 11, 12, 13});
  for (const std::int32_t ratio : {7, 8, 64, 4096}) {
    CHECK(averaged(numbered(14), compressed(one_row(14), segments, ratio).spans) ==
          std::vector<double>{0, 1, 2, 3, 7, 11, 12, 13});
  }
  CHECK(averaged(numbered(14), compressed(one_row(14), segments, 1).spans) == numbered(14));
}

TEST_CASE("rows without a passage stay as they are") {
  for (const Segments segments : {Segments{4, 3}, Segments{7, 0}, Segments{0, 7}}) {
    const Compression compression = compressed(one_row(7), {&segments, 1}, 2);
    CHECK(averaged(numbered(7), compression.spans) == numbered(7));
  }
  const Segments all_passage{0, 0};
  CHECK(averaged(numbered(5), compressed(one_row(5), {&all_passage, 1}, 2).spans) ==
        std::vector<double>{0.5, 2.5, 4});
}

TEST_CASE("a packed batch is compressed sequence by sequence") {
  // A prefix of 3 rows, two rows that continue it (5 passage + 1 prompt, 2 + 1), and one alone.
  Batch batch;
  batch.cu_seqlens = {0, 3, 9, 12, 18};
  batch.positions = {0, 1, 2, 3, 4, 5, 6, 7, 8, 3, 4, 5, 0, 1, 2, 3, 4, 5};
  batch.prefix = {-1, 0, 0, -1};
  batch.shareable = {0, 0, 0, 2};
  const std::vector<Segments> segments = {{3, 0}, {0, 1}, {0, 1}, {2, 1}};
  const Compression out = compressed(batch, segments, 2);
  CHECK(out.batch.cu_seqlens == std::vector<std::int32_t>{0, 3, 7, 9, 14});
  CHECK(out.batch.positions == std::vector<std::int32_t>{0, 1, 2, 3, 4, 5, 6, 3, 4, 0, 1, 2, 3, 4});
  CHECK(out.batch.prefix == batch.prefix);
  CHECK(out.batch.shareable == batch.shareable);
  CHECK(averaged(numbered(18), out.spans) ==
        std::vector<double>{0, 1, 2, 3.5, 5.5, 7, 8, 9.5, 11, 12, 13, 14.5, 16, 17});
}
