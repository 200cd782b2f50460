// A small assembler for the AVX-512 instructions that tile programs become, and memory that may be executed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

namespace tenon::cpu::x64 {

enum Gpr : uint8_t { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };

// [base + index * scale + disp]; `broadcast`: one 32-bit element for all lanes.
struct Mem {
  Gpr base;
  int index = -1, scale = 1;
  int32_t disp = 0;
  bool broadcast = false;
};

// A vector register (0 to 31) or memory, as an instruction's last operand.
struct Operand {
  bool is_mem = false;
  uint8_t reg = 0;
  Mem mem{rax};
  static Operand of(uint8_t r) { return {.reg = r}; }
  static Operand of(const Mem& m) { return {.is_mem = true, .mem = m}; }
};

// Opcode map (1: 0F, 2: 0F38, 3: 0F3A), prefix (0: none, 1: 66, 2: F3, 3: F2), W and opcode of an EVEX
// instruction.
struct Op {
  uint8_t map, prefix, w, code;
};
inline constexpr Op kLoad{1, 0, 0, 0x10}, kStore{1, 0, 0, 0x11}, kMove{1, 0, 0, 0x28},
    kBroadcast{2, 1, 0, 0x18};
inline constexpr Op kAdd{1, 0, 0, 0x58}, kMul{1, 0, 0, 0x59}, kSub{1, 0, 0, 0x5c}, kDiv{1, 0, 0, 0x5e};
inline constexpr Op kMin{1, 0, 0, 0x5d}, kMax{1, 0, 0, 0x5f}, kSqrt{1, 0, 0, 0x51};
inline constexpr Op kXor{1, 1, 0, 0xef}, kAnd{1, 1, 0, 0xdb};
// a = a * b + c in the order that gives operands 213: dst = second * dst + third; 231: dst = dst +- second *
// third.
inline constexpr Op kFma213{2, 1, 0, 0xa8}, kNegFma231{2, 1, 0, 0xbc};
inline constexpr Op kRoundScale{3, 1, 0, 0x08}, kScalef{2, 1, 0, 0x2c}, kLookUp{2, 1, 0, 0x77};
inline constexpr Op kCompare{1, 0, 0, 0xc2}, kCompareInt{3, 1, 0, 0x1f}, kBlend{2, 1, 0, 0x65};
// On bytes, with 128-bit registers.
inline constexpr Op kLoadBytes{1, 3, 0, 0x6f}, kStoreBytes{1, 3, 0, 0x7f}, kTestBytes{2, 1, 0, 0x26};

class Assembler {
 public:
  const std::vector<uint8_t>& code() const { return code_; }
  size_t here() const { return code_.size(); }

  // reg = op(second, last). `mask` k1 to k7 (0: none), zeroing what it leaves out or keeping it. `bits`: 512
  // or 128.
  void evex(Op op, uint8_t reg, uint8_t second, const Operand& last, uint8_t mask = 0, bool zero = false,
            int bits = 512) {
    const bool m = last.is_mem;
    const int base = m ? int{last.mem.base} : int{last.reg}, index = m ? last.mem.index : -1;
    const bool x = m ? index >= 8 : (last.reg & 16) != 0, b = (base & 8) != 0;
    byte(0x62);
    byte(static_cast<uint8_t>((reg & 8 ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | (reg & 16 ? 0 : 0x10) |
                              op.map));
    byte(static_cast<uint8_t>((op.w << 7) | ((~second & 15) << 3) | 4 | op.prefix));
    byte(static_cast<uint8_t>((zero ? 0x80 : 0) | (bits == 512 ? 0x40 : 0) |
                              (m && last.mem.broadcast ? 0x10 : 0) | (second & 16 ? 0 : 8) | mask));
    byte(op.code);
    operand(reg, last);
  }
  void evex_immediate(Op op, uint8_t reg, uint8_t second, const Operand& last, int8_t immediate) {
    evex(op, reg, second, last);
    byte(static_cast<uint8_t>(immediate));
  }

  // 64-bit integer instructions.
  void push(Gpr r) {
    if (r >= 8) byte(0x41);
    byte(static_cast<uint8_t>(0x50 | (r & 7)));
  }
  void pop(Gpr r) {
    if (r >= 8) byte(0x41);
    byte(static_cast<uint8_t>(0x58 | (r & 7)));
  }
  void load(Gpr to, const Mem& from) {
    byte(static_cast<uint8_t>(0x48 | (to >= 8 ? 4 : 0) | (from.index >= 8 ? 2 : 0) |
                              (from.base >= 8 ? 1 : 0)));
    byte(0x8b);
    operand(to, Operand::of(from));
  }
  void clear(Gpr r) { arithmetic(0x31, r, r); }
  void add(Gpr r, int8_t v) { immediate(0, r, v); }
  void sub(Gpr r, int8_t v) { immediate(5, r, v); }
  // Mask register k = 16 bits of memory.
  void load_mask(uint8_t k, const Mem& from) {  // VEX.L0.0F.W0 90, three-byte form
    byte(0xc4);
    byte(static_cast<uint8_t>(0x80 | (from.index >= 8 ? 0 : 0x40) | (from.base >= 8 ? 0 : 0x20) | 1));
    byte(0x78);
    byte(0x90);
    operand(k, Operand::of(from));
  }
  void prefetch(const Mem& m) {  // PREFETCHT0
    byte(static_cast<uint8_t>(0x40 | (m.index >= 8 ? 2 : 0) | (m.base >= 8 ? 1 : 0)));
    byte(0x0f), byte(0x18);
    operand(1, Operand::of(m));
  }
  void zero_upper() { byte(0xc5), byte(0xf8), byte(0x77); }
  void ret() { byte(0xc3); }

  enum Condition : uint8_t { below = 0x82, above_equal = 0x83, equal = 0x84 };
  // Jumps with 32-bit distances: forward ones are completed by land().
  size_t jump(Condition c) {
    byte(0x0f), byte(c);
    dword(0);
    return here();
  }
  void jump(Condition c, size_t target) {
    byte(0x0f), byte(c);
    dword(static_cast<int32_t>(target) - static_cast<int32_t>(here() + 4));
  }
  void land(size_t jump) {
    const auto distance = static_cast<int32_t>(here() - jump);
    std::memcpy(code_.data() + jump - 4, &distance, 4);
  }

 private:
  void byte(uint8_t b) { code_.push_back(b); }
  void dword(int32_t v) {
    for (int i = 0; i < 4; ++i) byte(static_cast<uint8_t>(static_cast<uint32_t>(v) >> (8 * i)));
  }
  void arithmetic(uint8_t code, Gpr to, Gpr from) {
    byte(static_cast<uint8_t>(0x48 | (from >= 8 ? 4 : 0) | (to >= 8 ? 1 : 0)));
    byte(code);
    byte(static_cast<uint8_t>(0xc0 | (from & 7) << 3 | (to & 7)));
  }
  void immediate(uint8_t extension, Gpr r, int8_t v) {
    byte(static_cast<uint8_t>(0x48 | (r >= 8 ? 1 : 0)));
    byte(0x83);
    byte(static_cast<uint8_t>(0xc0 | extension << 3 | (r & 7)));
    byte(static_cast<uint8_t>(v));
  }
  // ModRM and what follows it; distances always in 32 bits, which EVEX does not scale.
  void operand(int reg, const Operand& o) {
    if (!o.is_mem) {
      byte(static_cast<uint8_t>(0xc0 | (reg & 7) << 3 | (o.reg & 7)));
      return;
    }
    const Mem& m = o.mem;
    const bool sib = m.index >= 0 || (m.base & 7) == 4;
    byte(static_cast<uint8_t>(0x80 | (reg & 7) << 3 | (sib ? 4 : m.base & 7)));
    if (sib) {
      const int scale = m.scale == 8 ? 3 : m.scale == 4 ? 2 : m.scale == 2 ? 1 : 0;
      byte(static_cast<uint8_t>(scale << 6 | (m.index >= 0 ? m.index & 7 : 4) << 3 | (m.base & 7)));
    }
    dword(m.disp);
  }

  std::vector<uint8_t> code_;
};

// Code in memory of its own, executable and no longer writable; null where the system does not allow that.
class Executable {
 public:
  static std::shared_ptr<const Executable> make(const std::vector<uint8_t>& code);
  ~Executable();
  Executable(const Executable&) = delete;
  Executable& operator=(const Executable&) = delete;
  const void* entry() const { return memory_; }

 private:
  Executable(void* memory, size_t bytes) : memory_(memory), bytes_(bytes) {}
  void* memory_;
  size_t bytes_;
};

}  // namespace tenon::cpu::x64
