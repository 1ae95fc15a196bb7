// Attention by AMX tiles, for heads that fill them. Included once, see ops/amx.h.
//
// As vector/attention.inl it walks blocks of keys with a running maximum and sum; other than there,
// queries are the rows of a product and keys its columns: S = Q K^T, O += P V. A vector of scores
// is then 16 keys of one query, and two of them, rounded, are a row of the tile of probabilities
// that the second product takes: nothing is transposed between the products. What is, are the
// keys, and one transposed block serves all queries of an item.
//
// Steps of the products of the tile before and of the tile after lie between the rows of
// exponentials, where the processor's window finds them. No order of theirs changes a bit. Measured
// on Sapphire Rapids: 16 multiply-adds on vectors beside each tile product are free; more of them
// take one cycle each instead of half of one, as if the products held one of the two ports.

class TileAttention {
 public:
  using Element = bf16;
  using Layout = AttentionLayout<bf16>;
  using Scope = TileScope;
  static constexpr std::int64_t kQueries = 512;  // of an item

  static std::int64_t scratch_floats(std::int64_t stride) { return Scratch(stride).end; }

  TileAttention(const Batch& batch, const Layout& layout, const AttentionRule& rule, Scope& scope,
                float* scratch)
      : batch_(batch),
        layout_(layout),
        rule_(rule),
        words_(layout.stride() / Layout::kPerWord),
        steps_(words_ / kTileWords),
        output_step_(Scratch::output_step(layout.stride())),
        parts_(rule.causal ? 2 : 1) {
    const Scratch at(layout.stride());
    queries_ = reinterpret_cast<Word*>(scratch + at.queries);
    keys_ = reinterpret_cast<Word*>(scratch + at.keys);
    values_ = reinterpret_cast<Word*>(scratch + at.values);
    probabilities_ = reinterpret_cast<Word*>(scratch + at.probabilities);
    scores_ = scratch + at.scores;
    output_ = scratch + at.output;
    sums_ = scratch + at.sums;
    scope.use_whole_tiles();
  }

  // The queries: lane l is row rows[l] of the batch (of `sequence`) and query head heads[l].
  struct Lanes {
    std::int64_t sequence = 0;
    std::int64_t kv_head = 0;
    std::int64_t count = 0;
    std::int64_t rows[kQueries];
    std::int64_t heads[kQueries];
    std::int64_t out_rows[kQueries];
  };

  // Attention of one item, written to rows of `out`, out_step elements apart.
  void run(const Lanes& lanes, bf16* out, std::int64_t out_step) {
    load_queries(lanes);
    find_seen_ranges(lanes);
    const std::int32_t prefix = batch_.prefix_of(lanes.sequence);
    std::int64_t position = 0;
    if (prefix >= 0) {
      walk_keys(KeyRows(batch_, prefix), lanes.kv_head, 0);
      position = batch_.length(prefix);
    }
    walk_keys(KeyRows(batch_, lanes.sequence), lanes.kv_head, position);
    write(lanes, out, out_step);
  }

 private:
  static constexpr std::int64_t kTileQueries = 2 * kTileRows;
  static constexpr std::int64_t kKeyBlock = 128;
  static constexpr std::int64_t kKeyTile = 2 * kTileWords;  // keys of a tile of probabilities
  static constexpr std::int64_t kScoreStep = kKeyBlock + kTileWords;  // off multiples of 4 KiB
  static constexpr std::int64_t kScoreWords = kTileQueries * kScoreStep;
  static constexpr std::int64_t kTileSize = kTileRows * kTileWords;
  static constexpr std::int64_t kProbabilityWords = kTileQueries * kKeyBlock / 2;
  static constexpr std::int64_t kTiles = kQueries / kTileQueries;
  static constexpr float kLowest = avx512::pairs::kLowest;

  // Where everything begins, in floats.
  struct Scratch {
    explicit Scratch(std::int64_t stride)
        : keys(queries + kQueries * stride / 2),
          values(keys + kKeyBlock * stride / 2),
          probabilities(values + kKeyBlock * stride / 2),
          scores(probabilities + 4 * kProbabilityWords),
          output(scores + 2 * kScoreWords),
          sums(output + kQueries * output_step(stride)),
          end(sums + kQueries * kTileWords) {}
    static std::int64_t output_step(std::int64_t stride) { return stride + kTileWords; }

    std::int64_t queries = 0;    // [tile][row tile][step of words][16 rows][16]
    std::int64_t keys;           // [16 keys][step of words][16 words][16 keys]
    std::int64_t values;         // as in memory, where a block's last keys do not fill a tile
    std::int64_t probabilities;  // [2][part][row tile][32 keys][16 rows][16]
    std::int64_t scores;         // [2][query][kScoreStep]
    std::int64_t output;         // [query][output_step]
    std::int64_t sums;           // [query][16]
    std::int64_t end;
  };

  // Positions that some query of a tile sees, and that all of them do.
  struct Seen {
    float lowest_first, highest_first, lowest_last, highest_last;
  };

  // Rows past the last repeat it.
  void load_queries(const Lanes& lanes) {
    tiles_ = ceil_div(lanes.count, kTileQueries);
    for (std::int64_t lane = 0; lane < tiles_ * kTileQueries; ++lane) {
      const std::int64_t from = std::min(lane, lanes.count - 1);
      const auto* words =
          reinterpret_cast<const Word*>(layout_.query(lanes.rows[from], lanes.heads[from]));
      Word* to = queries_ + lane / kTileRows * steps_ * kTileSize + lane % kTileRows * kTileWords;
      for (std::int64_t step = 0; step < steps_; ++step) {
        avx512::store_words(to + step * kTileSize, avx512::load_words(words + step * kTileWords));
      }
    }
    std::fill_n(sums_, tiles_ * kTileQueries * kTileWords, 0.0f);
    std::fill_n(maxima_, tiles_ * kTileQueries, kLowest * avx512::kLog2E);
    std::fill_n(begun_, tiles_, false);
  }

  // First and last position that each query sees, as floats (exact below 2^24).
  void find_seen_ranges(const Lanes& lanes) {
    const std::int32_t prefix = batch_.prefix_of(lanes.sequence);
    const std::int64_t offset = (prefix < 0 ? 0 : batch_.length(prefix)) -
                                batch_.cu_seqlens[static_cast<std::size_t>(lanes.sequence)];
    constexpr float kFar = 1e9f;
    highest_last_ = -kFar;
    for (std::int64_t tile = 0; tile < tiles_; ++tile) {
      Seen& seen = seen_[tile];
      seen = {kFar, -kFar, kFar, -kFar};
      for (std::int64_t lane = tile * kTileQueries; lane < (tile + 1) * kTileQueries; ++lane) {
        const auto position =
            static_cast<float>(lanes.rows[std::min(lane, lanes.count - 1)] + offset);
        const float reach = rule_.window > 0 ? static_cast<float>(rule_.window - 1) : kFar;
        first_seen_[lane] = position - reach;
        last_seen_[lane] = rule_.causal ? position : position + reach;
        seen.lowest_first = std::min(seen.lowest_first, first_seen_[lane]);
        seen.highest_first = std::max(seen.highest_first, first_seen_[lane]);
        seen.lowest_last = std::min(seen.lowest_last, last_seen_[lane]);
        seen.highest_last = std::max(seen.highest_last, last_seen_[lane]);
      }
      highest_last_ = std::max(highest_last_, seen.highest_last);
    }
  }

  void walk_keys(const KeyRows& keys, std::int64_t kv_head, std::int64_t position) {
    walk_segment(keys, 0, keys.opening, kv_head, position);
    walk_segment(keys, keys.opening, keys.length, kv_head, position);
  }

  // A block of keys as one tile of queries sees it.
  struct Block {
    std::int64_t tile = 0;
    std::int64_t slot = 0;   // of scores and probabilities
    std::int64_t count = 0;  // keys; the others up to a whole tile get probability 0
    bool masked = false;
    float first = 0;  // position of key 0
  };

  // Keys [begin, end) of a sequence whose key 0 has the given position.
  void walk_segment(const KeyRows& keys, std::int64_t begin, std::int64_t end, std::int64_t kv_head,
                    std::int64_t position) {
    for (std::int64_t key = begin; key < end; key += kKeyBlock) {
      const auto first = static_cast<float>(position + key);
      if (first > highest_last_) return;
      const std::int64_t left = std::min(kKeyBlock, end - key);
      Block blocks[kTiles];
      std::int64_t count = 0;
      for (std::int64_t tile = 0; tile < tiles_; ++tile) {
        const Seen& seen = seen_[tile];
        // A block ends early where nobody looks: keys that are not seen add exact zeros.
        const auto keys_seen = static_cast<std::int64_t>(
            std::min(static_cast<float>(left), seen.highest_last - first + 1));
        const auto last = first + static_cast<float>(keys_seen - 1);
        if (keys_seen <= 0 || last < seen.lowest_first) continue;
        const bool masked = first < seen.highest_first || last > seen.lowest_last;
        blocks[count] = {tile, count % 2, keys_seen, masked, first};
        ++count;
      }
      if (count == 0) continue;
      transpose_keys(layout_.key(keys.begin + key, kv_head), left);
      find_values(layout_.value(keys.value_slot(key), kv_head), left);
      add_blocks(blocks, count);
    }
  }

  // keys_ of a block; keys past the last are zeros.
  void transpose_keys(const bf16* keys, std::int64_t count) {
    const auto* from = reinterpret_cast<const Word*>(keys);
    Word* to = keys_;
    for (std::int64_t key = 0; key < count; key += kTileWords) {
      for (std::int64_t word = 0; word < words_; word += kTileWords, to += kTileSize) {
        avx512::Vector rows[kTileWords];
        for (std::int64_t i = 0; i < kTileWords; ++i) {
          rows[i] = key + i < count ? avx512::load_words(from + (key + i) * words_ + word)
                                    : avx512::zero();
        }
        avx512::transpose(rows);
        for (std::int64_t i = 0; i < kTileWords; ++i) {
          avx512::store_words(to + i * kTileWords, rows[i]);
        }
      }
    }
    // A tile of probabilities has two tiles of keys.
    if (ceil_div(count, kTileWords) % 2 != 0) std::fill_n(to, steps_ * kTileSize, Word{0});
  }

  // Where the pairs of values lie, followed by zeros up to a whole tile.
  void find_values(const bf16* values, std::int64_t count) {
    block_values_ = reinterpret_cast<const Word*>(values);
    if (count % kKeyTile == 0) return;
    const std::int64_t stride = layout_.stride();
    const std::int64_t words = ceil_div(count, 2) * stride;
    std::memcpy(values_, values, static_cast<std::size_t>(words) * sizeof(Word));
    std::fill(values_ + words, values_ + round_up(count, kKeyTile) / 2 * stride, Word{0});
    block_values_ = values_;
  }

  // C (two row tiles, two column tiles) = or += A B, a step of four products at a time: whoever
  // asks for one has other work for the processor beside it.
  struct Product {
    const Word* a[2] = {};  // tiles of 16 rows, one after another
    const Word* b[2] = {};
    std::int64_t b_row = 0;   // bytes
    std::int64_t b_step = 0;  // words from one tile to the next
    float* c[2] = {};
    std::int64_t c_row = 0;  // bytes
    std::int64_t steps = 0;
  };

  // The products of keys for one tile of queries and those of values for another, in steps.
  class Products {
   public:
    Products(const TileAttention& attention, const Block* keys, const Block* values)
        : attention_(attention),
          keys_(keys),
          values_(values),
          key_jobs_(keys == nullptr ? 0 : ceil_div(keys->count, kKeyTile)),
          jobs_(key_jobs_ + (values == nullptr ? 0 : attention.layout_.stride() / kKeyTile)) {}

    std::int64_t steps() const {
      std::int64_t steps = key_jobs_ * attention_.steps_;
      if (values_ != nullptr) {
        steps += (jobs_ - key_jobs_) * attention_.parts_ * ceil_div(values_->count, kKeyTile);
      }
      return steps;
    }

    void step() {
      if (left_ == 0) begin();
      constexpr std::int64_t kRow = kTileWords * sizeof(Word);
      // GCC's tile loads do not say that they read memory: what was stored before must be there.
      std::atomic_signal_fence(std::memory_order_seq_cst);
      _tile_loadd(6, now_.b[0], now_.b_row);
      _tile_loadd(4, now_.a[0], kRow);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, now_.b[1], now_.b_row);
      _tile_dpbf16ps(1, 4, 7);
      _tile_loadd(5, now_.a[1], kRow);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      for (int i = 0; i < 2; ++i) {
        now_.a[i] += kTileSize;
        now_.b[i] += now_.b_step;
      }
      --left_;
    }

    // After the last step.
    void end() {
      if (job_ > 0) store();
    }

   private:
    void begin() {
      if (job_ > 0 && second_part_ == 0) store();
      if (second_part_ > 0) {
        now_ = attention_.value_product(*values_, job_ - 1 - key_jobs_, 1);
        second_part_ = 0;
        left_ = now_.steps;
        return;
      }
      const bool of_keys = job_ < key_jobs_;
      now_ = of_keys ? attention_.key_product(*keys_, job_)
                     : attention_.value_product(*values_, job_ - key_jobs_, 0);
      second_part_ = of_keys ? 0 : attention_.parts_ - 1;
      left_ = now_.steps;
      ++job_;
      if (!of_keys && attention_.begun_[values_->tile]) {
        std::atomic_signal_fence(std::memory_order_seq_cst);
        _tile_loadd(0, now_.c[0], now_.c_row);
        _tile_loadd(1, now_.c[0] + kTileWords, now_.c_row);
        _tile_loadd(2, now_.c[1], now_.c_row);
        _tile_loadd(3, now_.c[1] + kTileWords, now_.c_row);
      } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      }
    }

    void store() const {
      _tile_stored(0, now_.c[0], now_.c_row);
      _tile_stored(1, now_.c[0] + kTileWords, now_.c_row);
      _tile_stored(2, now_.c[1], now_.c_row);
      _tile_stored(3, now_.c[1] + kTileWords, now_.c_row);
    }

    const TileAttention& attention_;
    const Block* keys_;
    const Block* values_;
    std::int64_t key_jobs_;
    std::int64_t jobs_;
    std::int64_t job_ = 0;
    std::int64_t second_part_ = 0;
    std::int64_t left_ = 0;
    Product now_;
  };

  // The block's scores, exponentials and sums for every tile of queries that sees it.
  void add_blocks(const Block* blocks, std::int64_t count) {
    finish(Products(*this, blocks, nullptr));
    for (std::int64_t i = 0; i < count; ++i) {
      const Block* previous = i > 0 ? &blocks[i - 1] : nullptr;
      Products products(*this, i + 1 < count ? &blocks[i + 1] : nullptr, previous);
      const std::int64_t steps = products.steps();
      std::int64_t step = 0;
      raise_maxima(blocks[i]);
      for (std::int64_t row = 0; row < kTileQueries; ++row) {
        for (; step * kTileQueries < steps * (row + 1); ++step) products.step();
        exponentiate(blocks[i], row);
      }
      products.end();
      if (previous != nullptr) begun_[previous->tile] = true;
    }
    finish(Products(*this, nullptr, &blocks[count - 1]));
    begun_[blocks[count - 1].tile] = true;
  }
  static void finish(Products products) {
    for (std::int64_t left = products.steps(); left > 0; --left) products.step();
    products.end();
  }

  float* scores(const Block& block) const { return scores_ + block.slot * kScoreWords; }
  Word* probabilities(const Block& block) const {
    return probabilities_ + block.slot * 2 * kProbabilityWords;
  }

  // scores (kTileQueries, keys) = queries keys^T, the job's 32 keys.
  Product key_product(const Block& block, std::int64_t job) const {
    const std::int64_t second = steps_ * kTileSize;
    Product product;
    product.a[0] = queries_ + block.tile * 2 * second;
    product.a[1] = product.a[0] + second;
    product.b[0] = keys_ + job * 2 * second;
    product.b[1] = product.b[0] + second;
    product.b_row = kTileWords * sizeof(Word);
    product.b_step = kTileSize;
    product.c[0] = scores(block) + job * kKeyTile;
    product.c[1] = product.c[0] + kTileRows * kScoreStep;
    product.c_row = kScoreStep * sizeof(float);
    product.steps = steps_;
    return product;
  }

  // output (kTileQueries, stride) += probabilities values, the job's 32 columns.
  Product value_product(const Block& block, std::int64_t job, std::int64_t part) const {
    Product product;
    product.a[0] = probabilities(block) + part * kProbabilityWords;
    product.a[1] = product.a[0] + kProbabilityWords / 2;
    product.b[0] = block_values_ + job * kKeyTile;
    product.b[1] = product.b[0] + kTileWords;
    product.b_row = layout_.stride() * std::int64_t{sizeof(Word)};
    product.b_step = kTileWords * layout_.stride();
    product.c[0] = output_ + block.tile * kTileQueries * output_step_ + job * kKeyTile;
    product.c[1] = product.c[0] + kTileRows * output_step_;
    product.c_row = output_step_ * std::int64_t{sizeof(float)};
    product.steps = ceil_div(block.count, kKeyTile);
    return product;
  }

  // The greatest lane of each of 16 vectors.
  static avx512::Vector highest_of_rows(avx512::Vector (&rows)[kTileRows]) {
    using avx512::maximum;
    avx512::Vector fours[4];
    for (int i = 0; i < 4; ++i) {
      avx512::Vector* four = rows + 4 * i;
      const auto low =
          maximum(_mm512_unpacklo_ps(four[0], four[1]), _mm512_unpackhi_ps(four[0], four[1]));
      const auto high =
          maximum(_mm512_unpacklo_ps(four[2], four[3]), _mm512_unpackhi_ps(four[2], four[3]));
      fours[i] = maximum(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
    }
    const auto first = maximum(_mm512_shuffle_f32x4(fours[0], fours[1], 0x44),
                               _mm512_shuffle_f32x4(fours[0], fours[1], 0xee));
    const auto second = maximum(_mm512_shuffle_f32x4(fours[2], fours[3], 0x44),
                                _mm512_shuffle_f32x4(fours[2], fours[3], 0xee));
    return maximum(_mm512_shuffle_f32x4(first, second, 0x88),
                   _mm512_shuffle_f32x4(first, second, 0xdd));
  }

  // The new maxima of a tile's queries, times log2(e), and what they shrink sums and output by.
  void raise_maxima(const Block& block) {
    using namespace avx512;
    float* scores = this->scores(block);
    const std::int64_t keys = round_up(block.count, kKeyTile);
    if (rule_.softcap > 0) cap_scores(scores, keys);
    if (block.masked || keys != block.count) mask_scores(block, scores, keys);
    for (std::int64_t half = 0; half < kTileQueries; half += kTileRows) {
      Vector most[kTileRows];
      for (std::int64_t row = 0; row < kTileRows; ++row) {
        const float* from = scores + (half + row) * kScoreStep;
        Vector two[2] = {load(from), load(from + kLanes)};
        for (std::int64_t key = kKeyTile; key < keys; key += kKeyTile) {
          two[0] = maximum(load(from + key), two[0]);
          two[1] = maximum(load(from + key + kLanes), two[1]);
        }
        most[row] = maximum(two[0], two[1]);
      }
      float* maxima = maxima_ + block.tile * kTileQueries + half;
      const Vector before = load(maxima);
      const Vector raised = maximum(highest_of_rows(most) * broadcast(kLog2E), before);
      const Vector factor = exp2(before - raised);
      store(maxima, raised);
      store(factors_ + half, factor);
      if (!begun_[block.tile] || all_equal(factor, broadcast(1.0f))) continue;
      float* output = output_ + (block.tile * kTileQueries + half) * output_step_;
      for (std::int64_t row = 0; row < kTileRows; ++row, output += output_step_) {
        scale_row(output, layout_.stride(), factors_[half + row]);
      }
    }
  }

  void cap_scores(float* scores, std::int64_t keys) const {
    using namespace avx512;
    const Vector cap = broadcast(rule_.softcap);
    const Vector inverse = broadcast(1.0f / rule_.softcap);
    for (std::int64_t row = 0; row < kTileQueries; ++row, scores += kScoreStep) {
      for (std::int64_t key = 0; key < keys; key += kLanes) {
        store(scores + key, cap * avx512::tanh(load(scores + key) * inverse));
      }
    }
  }

  void mask_scores(const Block& block, float* scores, std::int64_t keys) const {
    using namespace avx512;
    alignas(64) static constexpr float kLane[] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                  8, 9, 10, 11, 12, 13, 14, 15};
    const Vector unseen = broadcast(-std::numeric_limits<float>::infinity());
    const Vector begin = broadcast(block.first) + load(kLane);
    const float end = block.first + static_cast<float>(block.count - 1);
    for (std::int64_t row = 0; row < kTileQueries; ++row, scores += kScoreStep) {
      const std::int64_t lane = block.tile * kTileQueries + row;
      const Vector first = broadcast(first_seen_[lane]);
      const Vector last = broadcast(std::min(last_seen_[lane], end));
      for (std::int64_t key = 0; key < keys; key += kLanes) {
        const Vector position = begin + broadcast(static_cast<float>(key));
        const Vector after = select_less(last, position, unseen, load(scores + key));
        store(scores + key, select_less(position, first, unseen, after));
      }
    }
  }

  static avx512::Vector rounded(avx512::Vector x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x))), 16));
  }

  // Probabilities of one query, less its maximum, and their sum.
  void exponentiate(const Block& block, std::int64_t row) {
    using namespace avx512;
    const float* from = scores(block) + row * kScoreStep;
    const std::int64_t lane = block.tile * kTileQueries + row;
    const Vector minus = broadcast(-maxima_[lane]);
    Word* to = probabilities(block) + row / kTileRows * (kProbabilityWords / 2) +
               row % kTileRows * kTileWords;
    Vector sums[2] = {zero(), zero()};
    for (std::int64_t key = 0; key < block.count; key += kKeyTile, to += kTileSize) {
      const Vector low =
          pairs::exp2_rounded(multiply_add(load(from + key), broadcast(kLog2E), minus));
      const Vector high =
          pairs::exp2_rounded(multiply_add(load(from + key + kLanes), broadcast(kLog2E), minus));
      sums[0] = sums[0] + low;
      sums[1] = sums[1] + high;
      store_words(to, reinterpret_cast<Vector>(_mm512_cvtne2ps_pbh(high, low)));
      if (parts_ == 1) continue;
      store_words(to + kProbabilityWords, reinterpret_cast<Vector>(_mm512_cvtne2ps_pbh(
                                              high - rounded(high), low - rounded(low))));
    }
    float* sum = sums_ + lane * kLanes;
    store(sum, multiply_add(load(sum), broadcast(factors_[row]), sums[0] + sums[1]));
  }

  // out[row][head] = output / sum; zeros where nothing was seen. Adding zero turns -0, which a
  // masked block may leave or not, into 0.
  void write(const Lanes& lanes, bf16* out, std::int64_t out_step) {
    using namespace avx512;
    const std::int64_t head_dim = layout_.shape().head_dim;
    for (std::int64_t lane = 0; lane < lanes.count; ++lane) {
      bf16* to = out + lanes.out_rows[lane] * out_step + lanes.heads[lane] * head_dim;
      const float total = sum(load(sums_ + lane * kLanes));
      const float* from = output_ + lane * output_step_;
      const bool begun = begun_[lane / kTileQueries];
      const Vector inverse = broadcast(total > 0 ? 1.0f / total : total);  // a zero or a NaN
      for (std::int64_t d = 0; d < head_dim; d += kLanes) {
        const Vector value = begun ? load(from + d) : zero();
        pairs::store(to + d, multiply_add(value, inverse, zero()), kLanes);
      }
    }
  }

  const Batch& batch_;
  const Layout& layout_;
  AttentionRule rule_;
  std::int64_t words_;  // of a head
  std::int64_t steps_;  // whole tiles of them
  std::int64_t output_step_;
  // bf16 numbers that a probability is the sum of: as in vector/attention.inl.
  std::int64_t parts_;
  std::int64_t tiles_ = 0;
  Word* queries_;
  Word* keys_;
  Word* values_;
  Word* probabilities_;
  float* scores_;
  float* output_;
  float* sums_;
  const Word* block_values_ = nullptr;
  float highest_last_ = 0;
  Seen seen_[kTiles];
  bool begun_[kTiles];  // whether output_ holds anything
  alignas(64) float first_seen_[kQueries];
  alignas(64) float last_seen_[kQueries];
  alignas(64) float maxima_[kQueries];
  alignas(64) float factors_[kTileQueries];
};
