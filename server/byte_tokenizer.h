// A tokenizer.json whose tokens are the 256 bytes, for models that have none: random weights, and tests.
#ifndef SWITCHYARD_SERVER_BYTE_TOKENIZER_H_
#define SWITCHYARD_SERVER_BYTE_TOKENIZER_H_

#include <string>

namespace switchyard {

// Byte b is token b. Token 256 is the special token "</s>".
std::string ByteTokenizerJson();

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_BYTE_TOKENIZER_H_
