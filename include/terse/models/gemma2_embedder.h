// bge-multilingual-gemma2: the stock Gemma 2 trunk, whose default in transformers up to 4.47 caps
// attention logits; the vector of a text is the final state of its last token.
#pragma once

#include "terse/models/decoder_embedder.h"
#include "terse/models/gemma2.h"
#include "terse/models/loading.h"

namespace terse {

class Gemma2Embedder : public DecoderEmbedder<Gemma2, Gemma2Config> {
 public:
  Gemma2Embedder(const ModelFolder& folder, const Gemma2Config& config)
      : DecoderEmbedder(folder, config, "Gemma 2", {.attention_softcap = true}) {}
};

}  // namespace terse
