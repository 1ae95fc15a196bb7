// The models of instructions: results worked out by hand from the published definitions, the faults
// of the tile registers, and where the processor has the instructions, those.
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <iostream>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>

#include "samples.h"

using terse_test::Block;
using terse_test::Sample;

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }
// Two bf16 in a word.
std::uint32_t pair(float first, float second) { return bits(first) >> 16 | bits(second); }

Block block_of(std::initializer_list<std::uint32_t> words) {
  Block block;
  std::copy(words.begin(), words.end(), block.words.begin());
  return block;
}
Block floats(std::initializer_list<float> values) {
  Block block;
  std::transform(values.begin(), values.end(), block.words.begin(), bits);
  return block;
}

Block run(const std::string& name, const Block& x, const Block& y = {}, const Block& z = {}) {
  for (const Sample& sample : make_samples()) {
    if (sample.name != name) continue;
    Block out;
    sample.run(x, y, z, out);
    return out;
  }
  throw std::logic_error("no sample " + name);
}

bool equal_but_for_nans(const Block& a, const Block& b) {
  for (std::size_t i = 0; i < 16; ++i) {
    const bool nans = std::isnan(std::bit_cast<float>(a.words[i])) &&
                      std::isnan(std::bit_cast<float>(b.words[i]));
    if (a.words[i] != b.words[i] && !nans) return false;
  }
  return true;
}

// Any bits, with what is special more often than chance has it.
Block random_block(std::mt19937& random) {
  constexpr std::uint32_t kSpecial[] = {0,          0x80000000, 1,          0x807fffff, 0x7f800000,
                                        0xff800000, 0x7fc00000, 0x3f800000, 0x00800000, 0x7f7fffff};
  Block block;
  for (std::uint32_t& word : block.words) {
    word = static_cast<std::uint32_t>(random());
    if (random() % 4 == 0) word = kSpecial[random() % std::size(kSpecial)];
    if (random() % 2 == 0) word = (word & 0x83ffffff) | 0x3c000000;  // of the order of 1
  }
  return block;
}

}  // namespace

TEST_CASE("single precision by hand") {
  CHECK(run("vfmaddps", floats({1 + 0x1p-12f}), floats({1 + 0x1p-12f}), floats({-1})).words[0] ==
        bits(0x1p-11f + 0x1p-24f));  // not rounded in between
  const Block most =
      run("vmaxps", floats({1, kNan, 1, -0.0f, 0.0f}), floats({2, 1, kNan, 0.0f, -0.0f}));
  CHECK(equal_but_for_nans(most, floats({2, 1, kNan, 0.0f, -0.0f})));
  const Block scaled = run("vscalefps", floats({1.5f, 1.5f, 1, 0.0f, 1, 3}),
                           floats({2.9f, -1.5f, -149, kInfinity, 128, -kInfinity}));
  CHECK(equal_but_for_nans(scaled, floats({6, 0.375f, 0x1p-149f, kNan, kInfinity, 0})));
  CHECK(run("vrndscaleps", floats({0.5f, 1.5f, -2.5f, 2.500001f})).words ==
        floats({0, 2, -2, 3}).words);
}

TEST_CASE("bf16 by hand") {
  // Ties to even, denormals to zero with their sign, NaN stays NaN.
  const Block rounded =
      run("vcvtneps2bf16", block_of({0x3f808000, 0x3f818000, 0x3f808001, 0x00400000, 0x80400000,
                                     0x7f800001, 0xff800000, 0x7f7fffff}));
  CHECK(rounded.words[0] == 0x3f823f80);
  CHECK(rounded.words[1] == 0x00003f81);
  CHECK(rounded.words[2] == 0x7fc08000);
  CHECK(rounded.words[3] == 0x7f80ff80);
  // The upper product comes first: 2^24 + 1 - 2^24 is 0 where 1 is lost, 1 in the other order.
  CHECK(run("vdpbf16ps", block_of({pair(-1, 1)}), block_of({pair(0x1p24f, 1)}), floats({0x1p24f}))
            .words[0] == bits(0));
  CHECK(run("vdpbf16ps", block_of({pair(1, -1)}), block_of({pair(1, 0x1p24f)}), floats({0x1p24f}))
            .words[0] == bits(1));
  // A denormal operand, sum or result is a zero.
  CHECK(run("vdpbf16ps", block_of({0x00000040}), block_of({pair(0x1p20f, 0)})).words[0] == 0);
  CHECK(run("vdpbf16ps", {}, {}, block_of({0x00400000})).words[0] == 0);
  CHECK(run("vdpbf16ps", block_of({pair(0x1p-70f, 0)}), block_of({pair(0x1p-70f, 0)})).words[0] ==
        0);
}

TEST_CASE("tiles by hand") {
  // A is (1, 2 | 3, 4); the rows of B are x and y: 1 1 + 2 2 of x, 3 5 + 4 6 of y, and C 0.5.
  const Block x = block_of({pair(1, 2), pair(3, 4)});
  const Block y = block_of({pair(5, 6), pair(7, 8)});
  const Block out = run("tdpbf16ps", x, y, floats({0.5f, -1}));
  CHECK(out.words[0] == bits(1 * 1 + 2 * 2 + 3 * 5 + 4 * 6 + 0.5f));
  CHECK(out.words[1] == bits(1 * 3 + 2 * 4 + 3 * 7 + 4 * 8 - 1.0f));
  // First and second elements are summed apart: one after the other, 2^24 + 1 - 2^24 would lose 1.
  const Block apart = run("tdpbf16ps", block_of({pair(0x1p12f, 1), pair(-0x1p12f, 0)}),
                          block_of({pair(0x1p12f, 0)}));
  CHECK(apart.words[0] == bits(1));
  // And C comes last: 2^24 + (1 + 1), not 2^24 + 1 + 1.
  const Block last = run("tdpbf16ps", block_of({pair(1, 1)}), {}, floats({0x1p24f}));
  CHECK(last.words[0] == bits(0x1p24f + 2));
  // Bytes 1, 254, 3, 128 times themselves as 1, -2, 3, -128, and 4 times the first of y, -1.
  const Block bytes =
      run("tdpbusd", block_of({0x8003fe01, 0x00000004}), block_of({0x7f7f7fff}), block_of({10}));
  CHECK(static_cast<std::int32_t>(bytes.words[0]) == 10 + 1 - 508 + 9 - 16384 - 4);
}

TEST_CASE("tile faults") {
  emulated::Tiles tiles;
  std::array<std::uint32_t, 256> memory = {};
  const auto configured = [&](std::size_t word, std::uint32_t value) {
    Block config = terse_test::kProductConfig;
    config.words[word] = value;
    tiles.configure(&config);
  };
  CHECK_THROWS_AS(tiles.zero(0), std::logic_error);       // before a configuration
  CHECK_THROWS_AS(configured(0, 2), std::logic_error);    // palette
  CHECK_THROWS_AS(configured(1, 1), std::logic_error);    // a reserved byte
  CHECK_THROWS_AS(configured(4, 65), std::logic_error);   // bytes a row
  CHECK_THROWS_AS(configured(12, 17), std::logic_error);  // rows
  CHECK_THROWS_AS(configured(12, 0), std::logic_error);   // bytes without rows
  CHECK_THROWS_AS(configured(8, 64), std::logic_error);   // tile 8
  configured(6, 12);                                      // A of 3 words, B of 2 rows
  CHECK_THROWS_AS(tiles.dpbf16ps(0, 4, 6), std::logic_error);
  configured(12, 2);  // C of 2 rows, A of one
  CHECK_THROWS_AS(tiles.dpbf16ps(0, 4, 6), std::logic_error);
  configured(0, 1);
  CHECK_THROWS_AS(tiles.load(1, memory.data(), 64), std::logic_error);  // a tile without rows
  CHECK_THROWS_AS(tiles.dpbf16ps(0, 4, 4), std::logic_error);           // one tile twice
  tiles.dpbf16ps(0, 4, 6);
  tiles.release();
  CHECK_THROWS_AS(tiles.store(0, memory.data(), 64), std::logic_error);
}

TEST_CASE("models agree with the processor") {
  std::mt19937 random(11);
  const std::vector<Sample> models = make_samples();
  const std::vector<Sample>& natives = terse_test::native_samples();
  REQUIRE(models.size() == natives.size());
  for (std::size_t i = 0; i < models.size(); ++i) {
    if (!natives[i].available) {
      std::cerr << "skipped: this processor has no " << natives[i].name << "\n";
      continue;
    }
    CAPTURE(std::string(models[i].name));
    for (int round = 0; round < 20000; ++round) {
      const Block x = random_block(random), y = random_block(random), z = random_block(random);
      Block model, native;
      models[i].run(x, y, z, model);
      natives[i].run(x, y, z, native);
      REQUIRE(equal_but_for_nans(model, native));
    }
  }
}
