// Phases as machine code for AVX-512: values stay in registers, and every operation is the one that the
// interpreter's vector code does, so that no bit differs.
#include <algorithm>
#include <bit>
#include <map>

#include "backends/cpu/tile_draft.h"
#include "backends/cpu/tile_exp.h"
#include "backends/cpu/x64_code.h"

namespace tenon::cpu {
namespace {

using x64::Assembler;
using x64::Mem;
using x64::Operand;

constexpr x64::Gpr kStreams = x64::rdi, kCount = x64::rsi, kScalars = x64::rdx, kRowScalars = x64::rcx,
                   kPool = x64::r8;
constexpr x64::Gpr kIndex = kStreams;  // once the addresses of the streams are in registers
constexpr x64::Gpr kBases[NativeCode::kMaxStreams] = {x64::rax, x64::r9,  x64::r10, x64::r11, x64::rbx,
                                                      x64::rbp, x64::r12, x64::r13, x64::r14, x64::r15};
constexpr size_t kSaved = 4;                   // from here on the caller wants them back
constexpr uint8_t kTail = 1;                   // mask register of the last elements
constexpr int kExpTable = 12;                  // where it begins in the pool
constexpr size_t kNumbers = 44;                // where they begin in the pool
constexpr size_t kVectors = 32;                // registers
constexpr int kLanes = 16, kBlockBytes = 128;  // of a vector; of a scalar's block (TileRef)
constexpr int32_t kAheadBytes = 1024;          // how far before its use a stream is fetched

class PhaseCompiler {
 public:
  PhaseCompiler(const TileDraft& draft, const TilePhase& phase) : draft_(draft), phase_(phase) {}

  std::shared_ptr<const NativeCode> run() {
    const size_t n = phase_.reads.size() + phase_.writes.size();
    if (n > NativeCode::kMaxStreams) return nullptr;
    // The pool begins with the masks of 0 to 15 elements, a vector of bytes that are 1, and a table.
    for (uint32_t i = 0; i < 8; ++i)
      pool_.push_back(((1u << (2 * i)) - 1) | (((1u << (2 * i + 1)) - 1) << 16));
    for (int i = 0; i < 4; ++i) pool_.push_back(0x01010101u);
    for (const float t : kExp.table) pool_.push_back(std::bit_cast<uint32_t>(t));

    body(false);  // to see how many registers are left for numbers
    hold_numbers();
    a_ = Assembler();
    for (size_t i = kSaved; i < n; ++i) a_.push(kBases[i]);
    for (size_t i = 0; i < n; ++i)
      a_.load(kBases[i], {.base = kStreams, .disp = static_cast<int32_t>(8 * i)});
    for (const auto& [at, reg] : held_)
      copy(reg, Operand::of(Mem{.base = at.base, .disp = at.disp, .broadcast = !at.vector}));
    a_.clear(kIndex);
    a_.sub(kCount, kLanes);
    const size_t to_tail = a_.jump(Assembler::below);
    const size_t loop = a_.here();
    body(false);
    a_.add(kIndex, kLanes);
    a_.sub(kCount, kLanes);
    a_.jump(Assembler::above_equal, loop);
    a_.land(to_tail);
    a_.add(kCount, kLanes);
    const size_t to_end = a_.jump(Assembler::equal);
    a_.load_mask(kTail, {.base = kPool, .index = kCount, .scale = 2});
    body(true);
    a_.land(to_end);
    a_.zero_upper();
    for (size_t i = n; i-- > kSaved;) a_.pop(kBases[i]);
    a_.ret();
    if (failed_) return nullptr;

    auto memory = x64::Executable::make(a_.code());
    if (!memory) return nullptr;
    auto native = std::make_shared<NativeCode>();
    native->run = reinterpret_cast<NativeCode::Run>(reinterpret_cast<uintptr_t>(memory->entry()));
    native->memory = std::move(memory);
    native->pool = std::move(pool_);
    return native;
  }

 private:
  struct Place {  // of a number, or of a vector of several
    x64::Gpr base;
    int32_t disp;
    bool vector;
    auto operator<=>(const Place&) const = default;
  };

  // One vector of every stream. All is read before anything is written, since a result may lie where an
  // operand did.
  void body(bool tail) {
    tail_ = tail;
    vectors_.clear();
    masks_.clear();
    free_vectors_.clear();
    free_masks_.clear();
    for (size_t r = kVectors - held_.size(); r-- > 0;) free_vectors_.push_back(static_cast<uint8_t>(r));
    for (uint8_t k = 8; k-- > kTail + 1;) free_masks_.push_back(k);
    if (!tail) fetch_ahead();
    for (size_t i = 0; i < phase_.steps.size(); ++i) {
      step(phase_.steps[i]);
      forget_after(i);
    }
    for (size_t k = 0; k < phase_.writes.size(); ++k) store(phase_.writes[k], phase_.reads.size() + k);
  }

  void fetch_ahead() {
    const TileProgram& p = draft_.program;
    for (size_t i = 0; i < phase_.reads.size(); ++i) {
      const TileValue& v = draft_.value(phase_.reads[i]);
      if (v.kind != TileRef::input || size_of(v.lane) != 4 || !is_stream(p, p.inputs[v.index])) continue;
      Mem m = stream(i, 4);
      m.disp = kAheadBytes;
      a_.prefetch(m);
    }
  }

  // --- registers ---
  uint8_t take_vector() { return take(free_vectors_); }
  uint8_t take_mask() { return take(free_masks_); }
  uint8_t take(std::vector<uint8_t>& free) {
    if (free.empty()) {
      failed_ = true;
      return 2;  // the code is thrown away
    }
    const uint8_t r = free.back();
    free.pop_back();
    used_ = std::max(used_, kVectors - held_.size() - free_vectors_.size());
    return r;
  }
  void give(uint8_t vector) { free_vectors_.push_back(vector); }

  // Frees the registers of values that no later step of the phase reads and that are not written.
  void forget_after(size_t i) {
    const auto done = [&](int v) {
      if (std::find(phase_.writes.begin(), phase_.writes.end(), v) != phase_.writes.end()) return false;
      return std::none_of(phase_.steps.begin() + static_cast<std::ptrdiff_t>(i) + 1, phase_.steps.end(),
                          [&](const TileStep& s) { return s.reads(v); });
    };
    for (auto* held : {&vectors_, &masks_})
      for (auto it = held->begin(); it != held->end();)
        if (done(it->first)) {
          (held == &vectors_ ? free_vectors_ : free_masks_).push_back(it->second);
          it = held->erase(it);
        } else {
          ++it;
        }
  }

  // --- operands ---

  // The numbers read most often get the registers that the loop leaves free.
  void hold_numbers() {
    std::vector<std::pair<int, Place>> by_reads;
    for (const auto& [place, reads] : reads_) by_reads.emplace_back(-reads, place);
    std::sort(by_reads.begin(), by_reads.end());
    const size_t free = kVectors - std::min(used_, kVectors);
    for (size_t i = 0; i < std::min(free, by_reads.size()); ++i)
      held_[by_reads[i].second] = static_cast<uint8_t>(kVectors - 1 - i);
  }
  // A number that is the same for all lanes, or a vector of several: a register that holds it, or its memory.
  Operand uniform(x64::Gpr base, int32_t disp, bool vector = false) {
    const Place place{base, disp, vector};
    if (const auto it = held_.find(place); it != held_.end()) return Operand::of(it->second);
    ++reads_[place];
    return Operand::of(Mem{.base = base, .disp = disp, .broadcast = !vector});
  }
  Operand exp_table(int first) { return uniform(kPool, 4 * (kExpTable + first), true); }
  Operand constant(uint32_t bits) {
    const auto at = std::find(pool_.begin() + kNumbers, pool_.end(), bits);
    const auto index = static_cast<int32_t>(at - pool_.begin());
    if (at == pool_.end()) pool_.push_back(bits);
    return uniform(kPool, 4 * index);
  }
  Operand number(double v) { return constant(std::bit_cast<uint32_t>(static_cast<float>(v))); }
  void copy(uint8_t to, const Operand& from, uint8_t mask = 0) {
    const bool number = from.is_mem && from.mem.broadcast;
    Operand source = from;
    source.mem.broadcast = false;  // the instruction is one itself
    a_.evex(number ? x64::kBroadcast : x64::kLoad, to, 0, source, mask, mask != 0);
  }

  Mem stream(size_t i, int element_bytes) const {
    return {.base = kBases[i], .index = kIndex, .scale = element_bytes};
  }
  size_t read_index(int v) const {
    return static_cast<size_t>(std::find(phase_.reads.begin(), phase_.reads.end(), v) - phase_.reads.begin());
  }

  // A value as the last operand: its register, or the memory of a number that is the same for all lanes.
  Operand last(int v) {
    const TileValue& value = draft_.value(v);
    if (value.kind == TileRef::scalar) return uniform(kScalars, kBlockBytes * value.index);
    if (value.kind == TileRef::row_scalar) return uniform(kRowScalars, kBlockBytes * value.index);
    return Operand::of(vector(v));
  }
  uint8_t vector(int v) {
    if (const auto it = vectors_.find(v); it != vectors_.end()) return it->second;
    const uint8_t r = take_vector();
    a_.evex(x64::kLoad, r, 0, Operand::of(stream(read_index(v), 4)), tail_ ? kTail : 0, tail_);
    return vectors_[v] = r;
  }
  // A value in a register; a number may be put into one that the caller gives back through `spare`.
  uint8_t first(int v, std::vector<uint8_t>& spare) { return in_register(last(v), spare); }
  uint8_t in_register(const Operand& o, std::vector<uint8_t>& spare) {
    if (!o.is_mem) return o.reg;
    const uint8_t r = take_vector();
    copy(r, o);
    spare.push_back(r);
    return r;
  }
  uint8_t mask(int v) {
    if (const auto it = masks_.find(v); it != masks_.end()) return it->second;
    const uint8_t r = take_vector(), k = take_mask();
    a_.evex(x64::kLoadBytes, r, 0, Operand::of(stream(read_index(v), 1)), tail_ ? kTail : 0, tail_, 128);
    a_.evex(x64::kTestBytes, k, r, Operand::of(r), 0, false, 128);
    give(r);
    return masks_[v] = k;
  }

  // --- steps ---
  void step(const TileStep& s) {
    std::vector<uint8_t> spare;
    if (is_comparison(s.op)) {
      compare(s, spare);
    } else {
      const uint8_t out = take_vector();
      compute(s, out, spare);
      vectors_[s.out] = out;
    }
    for (const uint8_t r : spare) give(r);
  }

  void compare(const TileStep& s, std::vector<uint8_t>& spare) {
    // Predicates of the vector comparison: ordered ones, so that NaN compares as in C++.
    const auto predicate = [&](bool integers) -> int8_t {
      switch (s.op) {
        case TileOp::equal:
          return 0;
        case TileOp::not_equal:
          return 4;
        case TileOp::less:
          return integers ? 1 : 0x11;
        case TileOp::less_equal:
          return integers ? 2 : 0x12;
        case TileOp::greater:
          return integers ? 6 : 0x1e;
        default:
          return integers ? 5 : 0x1d;
      }
    };
    const bool integers = draft_.value(s.in[0]).lane == Lane::i32;
    const uint8_t a = first(s.in[0], spare), k = take_mask();
    a_.evex_immediate(integers ? x64::kCompareInt : x64::kCompare, k, a, last(s.in[1]), predicate(integers));
    masks_[s.out] = k;
  }

  void compute(const TileStep& s, uint8_t out, std::vector<uint8_t>& spare) {
    const int a = s.in[0], b = s.in[1];
    const auto binary = [&](const x64::Op& op) {
      const uint8_t x = first(a, spare);
      a_.evex(op, out, x, last(b));
    };
    const auto unary = [&] { return first(a, spare); };
    switch (s.op) {
      case TileOp::add:
        return binary(x64::kAdd);
      case TileOp::sub:
        return binary(x64::kSub);
      case TileOp::mul:
        return binary(x64::kMul);
      case TileOp::div:
        return binary(x64::kDiv);
      case TileOp::minimum:
      case TileOp::maximum:
        return extreme(first(a, spare), first(b, spare), s.op == TileOp::minimum ? 0x11 : 0x1e, out);
      case TileOp::neg:
        return a_.evex(x64::kXor, out, unary(), constant(0x80000000u));
      case TileOp::abs:
        return a_.evex(x64::kAnd, out, unary(), constant(0x7fffffffu));
      case TileOp::square: {
        const uint8_t x = unary();
        return a_.evex(x64::kMul, out, x, Operand::of(x));
      }
      case TileOp::relu: {  // x < 0 ? 0 : x
        const uint8_t x = unary();
        return blend_if(x, number(0), 0x11, x, number(0), out);
      }
      case TileOp::leaky_relu: {  // x > 0 ? x : x slope
        const uint8_t x = unary();
        a_.evex(x64::kMul, out, x, number(s.p0));
        return blend_if(x, number(0), 0x1e, out, Operand::of(x), out);
      }
      case TileOp::clamp: {
        const uint8_t x = unary();
        blend_if(x, number(s.p0), 0x11, x, number(s.p0), out);
        return blend_if(out, number(s.p1), 0x1e, out, number(s.p1), out);
      }
      case TileOp::sqrt:
        return a_.evex(x64::kSqrt, out, 0, last(a));
      case TileOp::rsqrt:
        a_.evex(x64::kSqrt, out, 0, last(a));
        return a_.evex(x64::kDiv, out, in_register(number(1), spare), Operand::of(out));
      case TileOp::reciprocal:
        return a_.evex(x64::kDiv, out, in_register(number(1), spare), last(a));
      case TileOp::exp:
        return exponential(last(a), out, spare);
      case TileOp::sigmoid:
        return sigmoid(unary(), out, spare);
      case TileOp::silu: {
        const uint8_t x = unary(), t = take_vector();
        sigmoid(x, t, spare);
        a_.evex(x64::kMul, out, x, Operand::of(t));
        return give(t);
      }
      case TileOp::copy:
        if (draft_.value(a).lane == Lane::f32) return copy(out, last(a));
        return copy(out, number(1), mask(a));
      case TileOp::where: {
        const uint8_t k = mask(a), no = first(s.in[2], spare);
        return a_.evex(x64::kBlend, out, no, last(b), k);
      }
      default:
        failed_ = true;
    }
  }

  // out = a (predicate) limit ? yes : no
  void blend_if(uint8_t a, const Operand& limit, int8_t predicate, uint8_t no, const Operand& yes,
                uint8_t out) {
    const uint8_t k = take_mask();
    a_.evex_immediate(x64::kCompare, k, a, limit, predicate);
    a_.evex(x64::kBlend, out, no, yes, k);
    free_masks_.push_back(k);
  }
  // The smaller or larger of two; NaN in either gives NaN (the second's by the comparison, the first's by the
  // blend).
  void extreme(uint8_t a, uint8_t b, int8_t predicate, uint8_t out) {
    const uint8_t t = take_vector(), k = take_mask();
    a_.evex_immediate(x64::kCompare, k, a, Operand::of(b), predicate);
    a_.evex(x64::kBlend, t, b, Operand::of(a), k);
    a_.evex_immediate(x64::kCompare, k, a, Operand::of(a), int8_t{0});  // a is a number
    a_.evex(x64::kBlend, out, a, Operand::of(t), k);
    give(t);
    free_masks_.push_back(k);
  }
  // As exp_f32 of tile_math-inl.h, instruction by instruction.
  void exponential(const Operand& x, uint8_t out, std::vector<uint8_t>& spare) {
    const uint8_t r = take_vector(), n = take_vector(), p = take_vector();
    a_.evex(x64::kMin, r, in_register(number(kExp.highest), spare), x);
    a_.evex(x64::kMax, r, in_register(number(kExp.lowest), spare), Operand::of(r));
    a_.evex(x64::kMul, n, r, number(kExp.log2_e));
    a_.evex_immediate(x64::kRoundScale, n, 0, Operand::of(n), kExp.round_to_32nd);
    a_.evex(x64::kNegFma231, r, n, number(kExp.ln2_high));
    a_.evex(x64::kNegFma231, r, n, number(kExp.ln2_low));
    a_.evex(x64::kAdd, p, n, number(kExp.shift));
    a_.evex(x64::kLookUp, p, in_register(exp_table(0), spare), exp_table(16));
    copy(out, number(kExp.third));
    a_.evex(x64::kFma213, out, r, number(0.5));
    a_.evex(x64::kFma213, out, r, number(1));
    a_.evex(x64::kMul, out, out, Operand::of(r));
    a_.evex(x64::kFma213, out, p, Operand::of(p));
    a_.evex(x64::kScalef, out, out, Operand::of(n));
    give(r), give(n), give(p);
  }
  // 1 / (1 + e^-x)
  void sigmoid(uint8_t x, uint8_t out, std::vector<uint8_t>& spare) {
    const uint8_t t = take_vector();
    a_.evex(x64::kXor, t, x, constant(0x80000000u));
    exponential(Operand::of(t), out, spare);
    a_.evex(x64::kAdd, out, out, number(1));
    a_.evex(x64::kDiv, out, in_register(number(1), spare), Operand::of(out));
    give(t);
  }
  void store(int v, size_t at) {
    if (const auto it = vectors_.find(v); it != vectors_.end())
      return a_.evex(x64::kStore, it->second, 0, Operand::of(stream(at, 4)), tail_ ? kTail : 0);
    const uint8_t k = masks_.at(v), r = take_vector();
    a_.evex(x64::kLoadBytes, r, 0, Operand::of(Mem{.base = kPool, .disp = 32}), k, true, 128);
    a_.evex(x64::kStoreBytes, r, 0, Operand::of(stream(at, 1)), tail_ ? kTail : 0, false, 128);
    give(r);
  }

  const TileDraft& draft_;
  const TilePhase& phase_;
  Assembler a_;
  std::vector<uint32_t> pool_;
  std::map<int, uint8_t> vectors_, masks_;  // values in registers
  std::vector<uint8_t> free_vectors_, free_masks_;
  size_t used_ = 0;                // registers at most, without those held
  std::map<Place, int> reads_;     // numbers read from memory, and how often
  std::map<Place, uint8_t> held_;  // numbers in registers for the whole loop
  bool tail_ = false, failed_ = false;
};

}  // namespace

std::shared_ptr<const NativeCode> compile_phase(const TileDraft& draft, const TilePhase& phase) {
  return PhaseCompiler(draft, phase).run();
}

}  // namespace tenon::cpu
