-- Strings, tables and the collector.
local words, count = {}, {}
for i = 1, 20000 do words[i] = ("w%x"):format(i * 7919 % 1009) end
local text = table.concat(words, " ")
for w in text:gmatch("%S+") do count[w] = (count[w] or 0) + 1 end
local names = {}
for w in pairs(count) do names[#names + 1] = w end
table.sort(names)
print(#text, #names, names[1], names[#names], count[names[500]])
print(#text:gsub("w(%x)", "%1-"), (text:gsub("%s+", ""):sub(1, 30)))
print(text:rep(2):find("w3f0 ", 1, true))

local s = ""
for i = 1, 3000 do s = s .. string.char(65 + i % 26) if #s > 500 then s = s:sub(-100) end end
print(s:lower():reverse())
local h = 0
for i = 1, #text do h = (h * 33 + text:byte(i)) % 4294967296 end
print(h, tostring(h), tonumber(("%d"):format(h)))

local ok, buffer = pcall(require, "string.buffer")
if ok then
  local b = buffer.new()
  for i = 1, 10000 do b:put(i, ",", i * 0.5, ";") end
  print(#b, #buffer.encode({1, 2, {x = text}}))
end

local list = {}
for i = 1, 100000 do list[i % 1000] = {i, tostring(i), {i}} end
collectgarbage()
collectgarbage("step", 100)
local sum = 0
for i = 0, 999 do sum = sum + list[i][1] + #list[i][2] + list[i][3][1] end
print(sum)
local big = {}
for i = 1, 20 do big[i] = ("x"):rep(2 ^ i) end
for i = 1, 20 do assert(#big[i] == 2 ^ i) end
print(#table.concat(big))
