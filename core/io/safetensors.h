// The safetensors format, which other programs read: an 8-byte length, a JSON header, then the raw tensors.
//
// Names are kept in the order given. Tensors are stored one after another without gaps, those with larger
// elements first, so that each lies at a multiple of its element size.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/base/status.h"
#include "core/io/file.h"
#include "core/tensor/host_array.h"

namespace tenon {

using NamedArrays = std::vector<std::pair<std::string, HostArray>>;
using TextMap = std::map<std::string, std::string>;

struct Safetensors {
  NamedArrays tensors;  // in the order of their data in the file
  TextMap metadata;     // the header's "__metadata__"
};

// Writes whole or not at all. Errors: two tensors of one name, the name "__metadata__", the disk.
// `crc32`, when given, takes the checksum of the file.
Status write_safetensors(const std::string& path, const NamedArrays& tensors, const TextMap& metadata = {},
                         uint32_t* crc32 = nullptr);

// Reads and checks everything: header length and JSON, names, element types (F32 F64 BF16 I32 I64 U8 BOOL),
// that shape and offsets agree, and that tensors fill the data exactly, without gap or overlap.
Result<Safetensors> read_safetensors(const std::string& path);
Result<Safetensors> parse_safetensors(std::string_view bytes, std::string_view path);

}  // namespace tenon
