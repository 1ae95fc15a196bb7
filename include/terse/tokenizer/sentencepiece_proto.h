// What a SentencePiece .model file says: pieces, trainer_spec and normalizer_spec.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "terse/error.h"
#include "terse/tokenizer/protobuf.h"
#include "terse/tokenizer/token.h"
#include "terse/tokenizer/vocabulary.h"
#include "terse/utf8.h"

namespace terse {

enum class PieceType : std::uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

// The parts of ModelProto that encoding and decoding need, with their defaults. Views point into
// the file. Source: google/sentencepiece src/sentencepiece_model.proto.
struct SentencePieceProto {
  enum class ModelType : std::int32_t { unigram = 1, bpe = 2, word = 3, character = 4 };

  struct Piece {
    std::string_view text;
    float score = 0;
    PieceType type = PieceType::normal;
  };

  std::vector<Piece> pieces;
  // trainer_spec
  ModelType model_type = ModelType::unigram;
  bool treat_whitespace_as_suffix = false;
  bool byte_fallback = false;
  // normalizer_spec
  std::string_view precompiled_charsmap;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;

  // Parses and checks a whole file. Throws Error: limit (size, piece length or count), truncated,
  // protobuf, range (a score that is not finite), utf8, tokenizer (a piece without text, not
  // exactly one unknown piece, byte pieces that contradict byte_fallback), unsupported (model
  // type).
  static SentencePieceProto parse(std::string_view file, std::string_view source);

 private:
  void read_piece(ProtobufReader reader, std::string_view source);
  void read_trainer_spec(ProtobufReader reader);
  void read_normalizer_spec(ProtobufReader reader);
  void check_pieces(std::string_view source) const;
  void check_byte_pieces(std::string_view source) const;
};

inline SentencePieceProto SentencePieceProto::parse(std::string_view file,
                                                    std::string_view source) {
  check(file.size() <= kMaxTokenizerBytes, ErrorClass::limit, source, ": ", file.size(),
        " bytes, at most ", kMaxTokenizerBytes, " are read");
  SentencePieceProto proto;
  ProtobufReader reader(file, source);
  ProtobufField field;
  while (reader.next(&field)) {
    if (field.kind != ProtobufField::Kind::bytes) continue;
    if (field.number == 1) proto.read_piece(reader.submessage(field), source);
    if (field.number == 2) proto.read_trainer_spec(reader.submessage(field));
    if (field.number == 3) proto.read_normalizer_spec(reader.submessage(field));
  }
  check(proto.model_type == ModelType::unigram || proto.model_type == ModelType::bpe,
        ErrorClass::unsupported, source, ": trainer_spec.model_type is ",
        static_cast<std::int32_t>(proto.model_type), ", expected 1 (unigram) or 2 (BPE)");
  proto.check_pieces(source);
  proto.check_byte_pieces(source);
  return proto;
}

inline void SentencePieceProto::read_piece(ProtobufReader reader, std::string_view source) {
  using Kind = ProtobufField::Kind;
  const std::size_t index = pieces.size();
  check(index < kMaxVocabulary, ErrorClass::limit, source, ": more than ", kMaxVocabulary,
        " pieces");
  Piece piece;
  ProtobufField field;
  while (reader.next(&field)) {
    if (field.is(1, Kind::bytes)) piece.text = field.bytes;
    if (field.is(2, Kind::fixed32)) piece.score = field.as_float();
    // proto2 treats an enum value it does not know as an unknown field.
    if (field.is(3, Kind::varint) && field.value >= 1 && field.value <= 6) {
      piece.type = static_cast<PieceType>(field.value);
    }
  }
  check(!piece.text.empty(), ErrorClass::tokenizer, source, ": piece ", index, " has no text");
  check(piece.text.size() < kMaxPieceBytes, ErrorClass::limit, source, ": piece ", index, " has ",
        piece.text.size(), " bytes, expected fewer than ", kMaxPieceBytes);
  check(utf8_valid_prefix(piece.text) == piece.text.size(), ErrorClass::utf8, source, ": piece ",
        index, " is not valid UTF-8");
  check(std::isfinite(piece.score), ErrorClass::range, source, ": the score of piece ", index,
        " is not finite");
  pieces.push_back(piece);
}

inline void SentencePieceProto::read_trainer_spec(ProtobufReader reader) {
  using Kind = ProtobufField::Kind;
  ProtobufField field;
  while (reader.next(&field)) {
    if (field.is(3, Kind::varint)) model_type = static_cast<ModelType>(field.as_int32());
    if (field.is(24, Kind::varint)) treat_whitespace_as_suffix = field.value != 0;
    if (field.is(35, Kind::varint)) byte_fallback = field.value != 0;
  }
}

inline void SentencePieceProto::read_normalizer_spec(ProtobufReader reader) {
  using Kind = ProtobufField::Kind;
  ProtobufField field;
  while (reader.next(&field)) {
    if (field.is(2, Kind::bytes)) precompiled_charsmap = field.bytes;
    if (field.is(3, Kind::varint)) add_dummy_prefix = field.value != 0;
    if (field.is(4, Kind::varint)) remove_extra_whitespaces = field.value != 0;
    if (field.is(5, Kind::varint)) escape_whitespaces = field.value != 0;
  }
}

inline void SentencePieceProto::check_pieces(std::string_view source) const {
  check(!pieces.empty(), ErrorClass::tokenizer, source, ": no pieces");
  std::size_t num_unknown = 0;
  for (const Piece& piece : pieces) num_unknown += piece.type == PieceType::unknown ? 1 : 0;
  check(num_unknown == 1, ErrorClass::tokenizer, source, ": ", num_unknown,
        " pieces of type UNKNOWN, expected 1");
}

inline void SentencePieceProto::check_byte_pieces(std::string_view source) const {
  std::array<bool, 256> found{};
  for (std::size_t index = 0; index < pieces.size(); ++index) {
    if (pieces[index].type != PieceType::byte) continue;
    check(byte_fallback, ErrorClass::tokenizer, source, ": piece ", index,
          " is a byte, but byte_fallback is off");
    const int byte = byte_of_piece(pieces[index].text);
    check(byte >= 0, ErrorClass::tokenizer, source, ": byte piece ", index,
          " is not \"<0x00>\" to \"<0xFF>\"");
    found[static_cast<std::size_t>(byte)] = true;
  }
  for (std::size_t byte = 0; byte_fallback && byte < found.size(); ++byte) {
    check(found[byte], ErrorClass::tokenizer, source, ": byte_fallback is on, but byte ", byte,
          " has no piece");
  }
}

}  // namespace terse
