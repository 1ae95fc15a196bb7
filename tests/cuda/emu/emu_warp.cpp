// What the lanes of a warp do together, after the PTX ISA: shuffles, votes, reductions, ldmatrix
// and mma. None of them orders memory.
#include "block.h"
#include "terse/dtype.h"

namespace emu {

namespace {

// Payload of a shuffle: word 0 the value, then the result; 1 operand; 2 width; 3 kind; 4 whether
// the source was in range, then also why the shuffle is at fault.
enum : std::uint64_t { kOutOfRange = 0, kInRange = 1, kNotInMask = 2 };

void finish_shuffle(Fiber* lanes, std::uint32_t mask) {
  std::uint64_t values[kWarp];
  for (unsigned lane = 0; lane < kWarp; ++lane) values[lane] = lanes[lane].payload.word[0];
  for (int lane = 0; lane < static_cast<int>(kWarp); ++lane) {
    if ((mask >> lane & 1U) == 0) continue;
    Payload& payload = lanes[lane].payload;
    const int operand = static_cast<int>(payload.word[1] & 31U);
    const int width = static_cast<int>(payload.word[2]);
    const int first = lane / width * width;  // of the segment
    int source = lane;
    bool in_range = true;
    switch (static_cast<Shuffle>(payload.word[3])) {
      case Shuffle::index:
        source = first + operand % width;
        break;
      case Shuffle::up:
        source = lane - operand;
        in_range = source >= first;
        break;
      case Shuffle::down:
        source = lane + operand;
        in_range = source < first + width;
        break;
      case Shuffle::exclusive_or:
        // A source in an earlier segment may be read, one in a later segment may not.
        source = lane ^ operand;
        in_range = source < first + width;
        break;
    }
    if (!in_range) source = lane;
    payload.word[4] = (mask >> source & 1U) == 0 ? kNotInMask : in_range ? kInRange : kOutOfRange;
    payload.word[0] = values[source];
    payload.word[5] = static_cast<std::uint64_t>(source);
  }
}

void finish_ballot(Fiber* lanes, std::uint32_t mask) {
  std::uint64_t result = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1U) != 0) result |= lanes[lane].payload.word[0] << lane;
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1U) != 0) lanes[lane].payload.word[0] = result;
  }
}

std::uint32_t combine(Reduce kind, std::uint32_t a, std::uint32_t b) {
  const auto signed_a = static_cast<std::int32_t>(a);
  const auto signed_b = static_cast<std::int32_t>(b);
  switch (kind) {
    case Reduce::add:
      return a + b;
    case Reduce::min_signed:
      return signed_b < signed_a ? b : a;
    case Reduce::max_signed:
      return signed_a < signed_b ? b : a;
    case Reduce::min:
      return b < a ? b : a;
    case Reduce::max:
      return a < b ? b : a;
    case Reduce::bit_and:
      return a & b;
    case Reduce::bit_or:
      return a | b;
    case Reduce::bit_xor:
      return a ^ b;
  }
  return a;
}

void finish_reduce(Fiber* lanes, std::uint32_t mask) {
  std::uint32_t result = 0;
  bool first = true;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1U) == 0) continue;
    const Payload& payload = lanes[lane].payload;
    const auto value = static_cast<std::uint32_t>(payload.word[0]);
    result = first ? value : combine(static_cast<Reduce>(payload.word[1]), result, value);
    first = false;
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if ((mask >> lane & 1U) != 0) lanes[lane].payload.word[0] = result;
  }
}

// Payload of ldmatrix: words 0 and 1 the row of the lane's address, then the results as registers;
// word 4 the number of matrices, 5 whether transposed.
void finish_load_matrix(Fiber* lanes, std::uint32_t) {
  std::uint16_t rows[kWarp][8];
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Payload& payload = lanes[lane].payload;
    for (unsigned column = 0; column < 8; ++column) {
      rows[lane][column] = static_cast<std::uint16_t>(payload.word[column / 4] >> column % 4 * 16);
    }
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    Payload& payload = lanes[lane].payload;
    const bool transposed = payload.word[5] != 0;
    for (unsigned matrix = 0; matrix < payload.word[4]; ++matrix) {
      std::uint32_t value = 0;
      for (unsigned half = 0; half < 2; ++half) {
        const unsigned major = lane / 4;
        const unsigned minor = lane % 4 * 2 + half;
        const std::uint16_t element =
            transposed ? rows[matrix * 8 + minor][major] : rows[matrix * 8 + major][minor];
        value |= static_cast<std::uint32_t>(element) << half * 16;
      }
      std::uint64_t& word = payload.word[matrix / 2];
      word = matrix % 2 == 0 ? value : word | static_cast<std::uint64_t>(value) << 32;
    }
  }
}

// Payload of mma: words 0 and 1 a, 2 b, 3 and 4 d. Products of 16-bit elements are exact in f64,
// and so, nearly, is their sum: rounded to f32 once. Hardware's order and rounding are not
// documented.
template <class T>
void finish_multiply(Fiber* lanes, std::uint32_t) {
  const auto element = [](std::uint64_t word, unsigned index) {
    return static_cast<double>(terse::to_f32(T{static_cast<std::uint16_t>(word >> index * 16)}));
  };
  double a[16][16];
  double b[16][8];
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const Payload& payload = lanes[lane].payload;
    const unsigned group = lane / 4;
    const unsigned pair = lane % 4 * 2;
    for (unsigned half = 0; half < 2; ++half) {
      a[group][pair + half] = element(payload.word[0], half);
      a[group + 8][pair + half] = element(payload.word[0], 2 + half);
      a[group][pair + 8 + half] = element(payload.word[1], half);
      a[group + 8][pair + 8 + half] = element(payload.word[1], 2 + half);
      b[pair + half][group] = element(payload.word[2], half);
      b[pair + 8 + half][group] = element(payload.word[2], 2 + half);
    }
  }
  double product[16][8] = {};
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned k = 0; k < 16; ++k) {
      for (unsigned column = 0; column < 8; ++column) {
        product[row][column] += a[row][k] * b[k][column];
      }
    }
  }
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    Payload& payload = lanes[lane].payload;
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = lane / 4 + (i / 2) * 8;
      const unsigned column = lane % 4 * 2 + i % 2;
      std::uint64_t& word = payload.word[3 + i / 2];
      const unsigned shift = i % 2 * 32;
      const float before = std::bit_cast<float>(static_cast<std::uint32_t>(word >> shift));
      const auto after = std::bit_cast<std::uint32_t>(
          static_cast<float>(static_cast<double>(before) + product[row][column]));
      word = (word & ~(std::uint64_t{0xffffffffU} << shift)) | static_cast<std::uint64_t>(after)
                                                                   << shift;
    }
  }
}

constexpr std::uint32_t kFullMask = 0xffffffffU;

}  // namespace

std::uint64_t shuffle(Site site, Shuffle kind, std::uint32_t mask, std::uint64_t value,
                      std::uint32_t operand, int width, bool* in_range) {
  Fiber& fiber = running();
  if (width < 1 || width > static_cast<int>(kWarp) || (width & (width - 1)) != 0) {
    fault("shuffle " + place(site) + ": width " + std::to_string(width) +
          ", expected a power of two up to 32");
  }
  Payload& payload = fiber.payload;
  payload.word[0] = value;
  payload.word[1] = operand;
  payload.word[2] = static_cast<std::uint64_t>(width);
  payload.word[3] = static_cast<std::uint64_t>(kind);
  meet(site, "shuffle", mask, false, &finish_shuffle);
  if (payload.word[4] == kNotInMask) {
    fault("shuffle " + place(site) + ": reads lane " + std::to_string(payload.word[5]) +
          ", which is not in the mask " + in_hex(mask));
  }
  if (in_range != nullptr) *in_range = payload.word[4] == kInRange;
  return payload.word[0];
}

std::uint32_t ballot(Site site, std::uint32_t mask, bool predicate) {
  Payload& payload = running().payload;
  payload.word[0] = predicate ? 1 : 0;
  meet(site, "vote", mask, false, &finish_ballot);
  return static_cast<std::uint32_t>(payload.word[0]);
}

std::uint32_t reduce(Site site, Reduce kind, std::uint32_t mask, std::uint32_t value) {
  Payload& payload = running().payload;
  payload.word[0] = value;
  payload.word[1] = static_cast<std::uint64_t>(kind);
  meet(site, "reduction", mask, false, &finish_reduce);
  return static_cast<std::uint32_t>(payload.word[0]);
}

void load_matrix(Site site, int matrices, bool transposed, std::uint32_t* out, const void* row) {
  Fiber& fiber = running();
  const auto address = reinterpret_cast<std::uintptr_t>(row);
  const auto window = reinterpret_cast<std::uintptr_t>(shared_window());
  if (address % 16 != 0) fault("ldmatrix " + place(site) + ": misaligned row");
  if (address < window || address + 16 > window + kSharedWindowBytes) {
    fault("ldmatrix " + place(site) + ": the row is not in shared memory");
  }
  Payload& payload = fiber.payload;
  // The lane reads the row it names, so that a race on it is its own; into its own stack, as
  // sanitizers see the copy.
  std::uint64_t words[2] = {};
  if (fiber.lane < static_cast<unsigned>(matrices) * 8) copy_bytes(words, row, sizeof(words));
  payload.word[0] = words[0];
  payload.word[1] = words[1];
  payload.word[4] = static_cast<std::uint64_t>(matrices);
  payload.word[5] = transposed ? 1 : 0;
  meet(site, "ldmatrix", kFullMask, false, &finish_load_matrix);
  for (int i = 0; i < matrices; ++i) {
    out[i] = static_cast<std::uint32_t>(payload.word[i / 2] >> i % 2 * 32);
  }
}

void multiply(Site site, Element element, float* d, const std::uint32_t* a,
              const std::uint32_t* b) {
  Payload& payload = running().payload;
  const auto join = [](std::uint32_t low, std::uint32_t high) {
    return low | static_cast<std::uint64_t>(high) << 32;
  };
  payload.word[0] = join(a[0], a[1]);
  payload.word[1] = join(a[2], a[3]);
  payload.word[2] = join(b[0], b[1]);
  payload.word[3] = join(std::bit_cast<std::uint32_t>(d[0]), std::bit_cast<std::uint32_t>(d[1]));
  payload.word[4] = join(std::bit_cast<std::uint32_t>(d[2]), std::bit_cast<std::uint32_t>(d[3]));
  meet(site, element == Element::bf16 ? "mma bf16" : "mma f16", kFullMask, false,
       element == Element::bf16 ? &finish_multiply<terse::bf16> : &finish_multiply<terse::f16>);
  for (int i = 0; i < 4; ++i) {
    d[i] = std::bit_cast<float>(static_cast<std::uint32_t>(payload.word[3 + i / 2] >> i % 2 * 32));
  }
}

// In a build with the perturbation, the seed and the value decide the error: the same input is off
// by the same amount wherever it occurs.
float approximate(float exact) {
  if (!options().perturb_math) return exact;
  const auto bits = std::bit_cast<std::uint32_t>(exact);
  const std::uint32_t exponent = bits >> 23 & 0xffU;
  if (exponent == 0 || exponent == 0xff) return exact;  // 0, denormal, infinity, NaN
  std::uint64_t hash = (bits + options().seed * 0x9e3779b97f4a7c15U) * 0xbf58476d1ce4e5b9U;
  hash ^= hash >> 31;
  const auto off = static_cast<std::int32_t>(hash % 5) - 2;
  return std::bit_cast<float>(bits + static_cast<std::uint32_t>(off));
}

}  // namespace emu
