// The table of one instruction set: all that the rest of the program sees of it.
#include "bf16.h"
#include "kernels.h"

namespace fastlstm::FASTLSTM_SHARED_ISA {

extern const RecurrentKernels<float> lstm_float32, rnn_float32, gru_float32;
extern const RecurrentKernels<double> lstm_float64, rnn_float64, gru_float64;
extern const EmbeddingKernels<float, std::int32_t> embedding_float32_int32;
extern const EmbeddingKernels<float, std::int64_t> embedding_float32_int64;
extern const EmbeddingKernels<double, std::int32_t> embedding_float64_int32;
extern const EmbeddingKernels<double, std::int64_t> embedding_float64_int64;
extern const LossKernels<float, std::int32_t> losses_float32_int32;
extern const LossKernels<float, std::int64_t> losses_float32_int64;
extern const LossKernels<double, std::int32_t> losses_float64_int32;
extern const LossKernels<double, std::int64_t> losses_float64_int64;
extern const LinearLossKernels<float> linear_loss_float32;
extern const LinearLossKernels<double> linear_loss_float64;
extern const SampledKernels<float> sampled_float32;
extern const SampledKernels<double> sampled_float64;
extern const OptimKernels<float> optim_float32;
extern const OptimKernels<double> optim_float64;
extern const SkipgramKernels<float> skipgram_float32;
extern const SkipgramKernels<double> skipgram_float64;
extern const ProductKernels<float> product_float32;
extern const ProductKernels<double> product_float64;
extern const DropoutKernels<float> dropout_float32;
extern const DropoutKernels<double> dropout_float64;

}  // namespace fastlstm::FASTLSTM_SHARED_ISA

namespace fastlstm::FASTLSTM_ISA {

using namespace FASTLSTM_SHARED_ISA;  // itself, but for an instruction set that has more for bf16 alone

extern const RecurrentKernels<float> lstm_bf16, rnn_bf16, gru_bf16;
extern const ProductKernels<float> product_bf16;
extern const LinearLossKernels<float> linear_loss_bf16;

#define FASTLSTM_NAME_OF(isa) #isa
#define FASTLSTM_NAME(isa) FASTLSTM_NAME_OF(isa)

extern const InstructionSet table{
    FASTLSTM_NAME(FASTLSTM_ISA),
    {&lstm_float32, &rnn_float32, &gru_float32, &embedding_float32_int32, &embedding_float32_int64,
     &losses_float32_int32, &losses_float32_int64, &linear_loss_float32, &sampled_float32, &optim_float32,
     &skipgram_float32, &product_float32, &dropout_float32},
    {&lstm_float64, &rnn_float64, &gru_float64, &embedding_float64_int32, &embedding_float64_int64,
     &losses_float64_int32, &losses_float64_int64, &linear_loss_float64, &sampled_float64, &optim_float64,
     &skipgram_float64, &product_float64, &dropout_float64},
    {FASTLSTM_BF16_IN_HARDWARE, &product_bf16, &linear_loss_bf16, &lstm_bf16, &rnn_bf16, &gru_bf16}};

}  // namespace fastlstm::FASTLSTM_ISA
